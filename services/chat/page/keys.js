// The keys, as they act and as the sheet lists them. A letter alone acts outside of text fields, if the person lets it.
import { $, make } from "./dom.js";
import * as storage from "./storage.js";
import { t } from "./words.js";

// Of the chat: shown keys, the words for what they do, and the action; without one the key is the browser's or a field's.
const CHAT = [
  [["Enter"], "key.send"],
  [["Ctrl+Enter"], "key.sendTwo"],
  [["Shift+Enter"], "key.newline"],
  [["Escape"], "key.leave"],
  [["/"], "key.write", "write"],
  [["n"], "key.fresh", "fresh"],
  [["k", "j"], "key.move", "previousTurn", "nextTurn"],
  [["h", "l"], "key.branch", "previousBranch", "nextBranch"],
  [["+"], "key.up", "up"],
  [["-"], "key.down", "down"],
  [["y"], "key.why", "why"],
  [["w"], "became", "became"],
  [["b"], "key.better", "better"],
  [["r"], "key.again", "again"],
  [["p"], "key.pair", "pair"],
  [["1", "2", "3", "4"], "key.pairVote", "left", "right", "same", "bothBad"],
  [["e"], "key.edit", "edit"],
  [["c"], "key.copy", "copy"],
  [["[", "]"], "key.switch", "previousConversation", "nextConversation"],
  [["?"], "key.sheet", "sheet"],
];

let listed = CHAT;

// `table`: the keys of another page.
export function listen(actions, table = CHAT) {
  listed = table;
  const byKey = Object.fromEntries(table.flatMap(([keys, , ...names]) => names.map((name, i) => [keys[i], name])));
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") return actions.leave();
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target) || !$("single-keys").checked) return;
    const name = byKey[event.key];
    if (!name) return;
    event.preventDefault();
    actions[name]();
  });
  $("single-keys").checked = storage.read("single-keys") ?? true;
  $("single-keys").onchange = () => storage.write("single-keys", $("single-keys").checked);
}

export function openSheet() {
  const rows = listed.flatMap(([keys, words]) => {
    const shown = keys.map((key) => make("kbd", "", key));
    return [make("dt", "", ...shown), make("dd", "", t(words))];
  });
  $("keys-list").replaceChildren(...rows);
  $("keys-sheet").showModal();
}

// A field of a dialog that has just closed keeps the focus until the next frame, and nobody writes in it.
const isField = (node) => node.matches("input:not([type=checkbox]), textarea, select") && node.checkVisibility();
