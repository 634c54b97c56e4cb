// Puts the page together: the composer, the list of conversations, the keys, and what the service says of itself.
import * as conversations from "./conversations.js";
import { $, announce, button, copy, dress, make, setText, toast } from "./dom.js";
import { askForKey } from "./key_dialog.js";
import * as kept from "./kept.js";
import * as keys from "./keys.js";
import * as profiles from "./profiles.js";
import * as service from "./service.js";
import * as storage from "./storage.js";
import * as thread from "./thread.js";
import * as votes from "./votes.js";
import * as words from "./words.js";
import { names, write } from "./writer.js";

const { t } = words;
const SAVE_MS = 1000, BANNER_MS = 20_000;
const writing = new Map();  // conversation id → { conversation, stop }, while an answer is written
let open = null, two = storage.read("two") ?? false, serving = "";

// ── what people do ────────────────────────────────────────────────────────────────────────────────────────────────

function send(text, pair = two) {
  const last = conversations.path(open).at(-1);
  // What failed is not gone on from: the new message becomes a variant of the one that was not answered.
  const failed = last && !conversations.isWhole(last);
  const parent = failed ? open.nodes[last.parent]?.parent ?? "" : last?.id ?? "";
  ask(conversations.add(open, { parent, role: "user", text }), pair);
}

function resend(node, text) {
  if (!writing.has(open.id)) ask(conversations.add(open, { parent: node.parent, role: "user", text }), two);
}

function again(node, pair = false) {
  if (!writing.has(open.id)) ask(open.nodes[node.parent], pair);
}

async function ask(message, pair) {
  const conversation = open, stop = new AbortController();
  writing.set(conversation.id, { conversation, stop });
  const answers = pair ? [conversations.newAnswer(), conversations.newAnswer()] : [conversations.newAnswer()];
  const node = conversations.add(conversation, { parent: message.id, role: "assistant", answers, goesOn: 0 });
  conversations.release(message);
  $("announcer").replaceChildren();
  announce(`${t("writing")}…`);
  showAll();
  thread.scrollToEnd();
  let saved = 0;
  const changed = inFrames(() => {
    thread.update(conversation, node);
    thread.speak(node, false);
    if (Date.now() - saved < SAVE_MS) return;
    saved = Date.now();
    conversations.save(conversation);
  });
  const messages = conversations.prompt(conversation, message);
  await write(node, { messages, conversation_id: conversation.id, ...profiles.chosen() }, stop.signal, changed);
  writing.delete(conversation.id);
  conversations.save(conversation);
  conversations.release(node);
  thread.speak(node, true);
  showAll();
  const hasFailed = node.answers.some(({ state }) => state === "failed");
  if (kept.seen.refused || hasFailed) look();  // a key may have been given, or the audience is gone
}

// Tokens come faster than a screen shows them.
function inFrames(work) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    const run = () => {
      if (!due) return;
      due = false;
      work();
    };
    requestAnimationFrame(run);
    setTimeout(run, 200);  // a tab in the background gets no frames
  };
}

function chose(node, index) {
  conversations.edit(open, node.id, { goesOn: index });
  showAll();
}

// Once a pair was voted on, it is told who wrote it.
async function reveal(node) {
  const conversation = open;
  try {
    const versions = await names(node);
    const answers = node.answers.map((answer, index) => ({ ...answer, versions: versions[index] }));
    conversations.edit(conversation, node.id, { answers });
    showAll();
  } catch { /* too long ago for the service to know: the vote counts all the same */ }
}

function branch(node, by) {
  const all = conversations.variants(open, node.parent), at = all.findIndex(({ id }) => id === node.id);
  const next = all[at + by];
  if (!next) return;
  open.chosen[node.parent] = next.id;
  conversations.save(open);
  showAll();
  thread.viewOfId(next.id).box.focus();
}

// To a conversation of that id, or to a new one.
function go(id) {
  open = writing.get(id)?.conversation ?? conversations.load(id) ?? conversations.create();
  storage.tab.write("open", open.id);
  document.body.classList.remove("menu-open");
  showAll();
  thread.scrollToEnd();
  catchUp();
}

function fresh() {
  go();
  $("input").focus();
}

function remove(id) {
  writing.get(id)?.stop.abort();
  const undo = conversations.remove(id);
  if (id === open.id) go();
  const back = () => {
    undo();
    go(id);
  };
  toast(t("removed"), { undo: back, eraseToo: () => erase(id) });
  showAll();
  look();
}

// What the service keeps of it, too: for good.
function erase(id) {
  return trying("notErased", async () => {
    await kept.erase(id);
    toast(t("erased"));
    showAll();
  });
}

// Does what asks the service, and says it if that fails.
async function trying(failed, act) {
  try {
    await act();
  } catch (error) {
    toast(t(failed, { why: error.message }));
  }
}

// At what the service keeps, and offers. Nobody asked for it, unless `ask`: then they are told why it cannot be seen.
async function look(ask = false) {
  profiles.offer($("profile")).catch(() => {});
  const act = async () => {
    await kept.look(ask);
    showAll();
    catchUp();
  };
  await (ask ? trying("notRead", act) : act().catch(() => {}));
}

// Takes in what was asked elsewhere in the conversation that is open.
function catchUp() {
  const row = kept.seen.rows.find(({ conversation_id: id }) => id === open.id);
  if (row && row.exchanges > conversations.completions(open).size && !writing.has(open.id)) bring(open);
}

function bring(conversation) {
  return trying("notRead", async () => {
    const exchanges = await kept.exchanges(conversation.id);
    if (writing.has(conversation.id)) return;
    votes.takeIn(conversation.id, exchanges);
    conversations.takeIn(conversation, exchanges);
    showAll();
  });
}

async function openKept(id) {
  await bring({ ...conversations.create(), id, changed: 0 });
  if (conversations.load(id)) go(id);
}

// ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────

function showAll() {
  thread.show(open);
  const busy = writing.has(open.id);
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  setText($("title"), open.title || t("untitled"));
  document.title = open.title ? `${open.title} – rlhf-online` : "rlhf-online";
  showList();
}

function showList() {
  const here = conversations.list(), elsewhere = keptOnly();
  $("conversations").replaceChildren(...here.map(({ id, title }) => {
    const item = listed(title, () => id !== open.id && go(id), t("remove", { title }), () => remove(id));
    if (id === open.id) item.firstChild.setAttribute("aria-current", "true");
    return item;
  }));
  $("kept").replaceChildren(...elsewhere.map(({ conversation_id: id, title }) => {
    const ask = () => toast(t("eraseAsk", { title }), { erase: () => erase(id), cancel: () => {} });
    return listed(title, () => openKept(id), t("eraseTitle", { title }), ask);
  }));
  $("kept-title").hidden = !elsewhere.length;
  $("kept-more").hidden = !kept.seen.more;
  $("kept-show").hidden = !kept.seen.refused;
}

// What the service keeps and this browser does not.
function keptOnly() {
  const here = new Set(conversations.list().map(({ id }) => id));
  return kept.seen.rows.filter(({ conversation_id: id }) => !here.has(id));
}

// A conversation of a list: its name, and a button that takes it from there.
function listed(title, show, goneTitle, takeAway) {
  const name = make("button", "name", title || t("untitled"));
  name.type = "button";
  name.title = title;
  name.onclick = show;
  const gone = button("remove", takeAway, { image: "trash", className: "icon" });
  gone.title = goneTitle;
  gone.setAttribute("aria-label", goneTitle);
  delete gone.dataset.tLabel;
  return make("li", "", name, gone);
}

function showState() {
  const { seen } = service, ready = seen.reachable && seen.state === "ready";
  const said = !seen.reachable ? t("unreachable") : ready ? seen.serving : seen.message;
  setText($("state"), seen.log === "ok" || !seen.reachable ? said : `${said} · ${seen.log}`);
  $("state").className = ready && seen.log === "ok" ? "ready" : "away";
  if (!ready || !seen.serving) return;
  if (serving && seen.serving !== serving) showBanner(seen.serving);
  serving = seen.serving;
}

function showBanner(version) {
  const newer = version.localeCompare(serving, "en", { numeric: true }) > 0;
  setText($("banner"), t(newer ? "newer" : "older", { version }));
  $("banner").hidden = false;
  clearTimeout(showBanner.timer);
  showBanner.timer = setTimeout(() => { $("banner").hidden = true; }, BANNER_MS);
}

// ── where it begins ───────────────────────────────────────────────────────────────────────────────────────────────

const onView = (act) => () => {
  const node = thread.current();
  if (node) act(thread.viewOfId(node.id), node);
};
const onAnswer = (act) => onView((view, node) => node.role === "assistant" && act(view, node));

function step(by) {
  const all = thread.turns(), at = all.indexOf(document.activeElement?.closest(".turn"));
  all.at(at < 0 ? -1 : Math.min(Math.max(at + by, 0), all.length - 1))?.focus();
}

function stepConversation(by) {
  const all = [...conversations.list(), ...keptOnly()], at = all.findIndex(({ id }) => id === open.id);
  const next = all[at + by];
  if (next?.id) go(next.id);
  else if (next) openKept(next.conversation_id);
}

function edit() {
  const nodes = conversations.path(open), at = nodes.indexOf(thread.current());
  const message = nodes.slice(0, at + 1).findLast(({ role }) => role === "user");
  if (message && !writing.has(open.id)) thread.viewOfId(message.id).edit();
}

function leave() {
  if (document.body.classList.contains("menu-open")) return toggleMenu(false);
  if (writing.has(open.id)) return writing.get(open.id).stop.abort();
  if (document.activeElement === $("input")) thread.turns().at(-1)?.focus({ preventScroll: true });
}

function toggleMenu(shown = !document.body.classList.contains("menu-open")) {
  document.body.classList.toggle("menu-open", shown);
  $("menu").setAttribute("aria-expanded", shown);
  if (shown) $("fresh").focus();
}

function setTwo(value) {
  two = value;
  storage.write("two", two);
  $("two").setAttribute("aria-pressed", two);
}

function submit(pair = two) {
  const text = $("input").value.trim();
  if (!text || writing.has(open.id)) return;
  $("input").value = "";
  storage.tab.write("draft", "");
  storage.tab.write("open", open.id);
  send(text, pair);
}

function wire() {
  $("composer").onsubmit = (event) => {
    event.preventDefault();
    submit();
  };
  $("input").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit(event.ctrlKey || event.metaKey || two);
  };
  $("input").oninput = () => storage.tab.write("draft", $("input").value);
  $("stop").onclick = () => writing.get(open.id)?.stop.abort();
  $("fresh").onclick = fresh;
  $("two").onclick = () => setTwo(!two);
  $("menu").onclick = () => toggleMenu();
  $("page").addEventListener("pointerdown", (event) => event.target.closest("#menu") || toggleMenu(false));
  $("show-keys").onclick = keys.openSheet;
  $("kept-show").onclick = () => look(true);
  $("kept-more").onclick = () => trying("notRead", async () => {
    await kept.lookFurther();
    showAll();
  });
  $("export").onclick = () => trying("notRead", kept.download);
  thread.setActions({ again, pair: (node) => again(node, true), chose, branch, resend, reveal });
  keys.listen({
    leave, fresh, edit, sheet: keys.openSheet, write: () => $("input").focus(),
    previousTurn: () => step(-1), nextTurn: () => step(1),
    previousBranch: onView((_, node) => branch(node, -1)), nextBranch: onView((_, node) => branch(node, 1)),
    previousConversation: () => stepConversation(-1), nextConversation: () => stepConversation(1),
    up: onAnswer((view) => view.isPair || view.vote(true)), down: onAnswer((view) => view.isPair || view.vote(false)),
    why: onAnswer((view) => view.why()), became: onAnswer((view) => view.became()),
    better: onAnswer((view) => view.better()),
    again: onAnswer((_, node) => again(node)), pair: onAnswer((_, node) => again(node, true)),
    left: onAnswer((view) => view.choose("left")), right: onAnswer((view) => view.choose("right")),
    same: onAnswer((view) => view.choose("same")), bothBad: onAnswer((view) => view.choose("bad")),
    copy: onAnswer((view, node) => view.copyButton && copy(node.answers[0].text, view.copyButton)),
  });
}

function follow() {
  service.onKeyNeeded(askForKey);
  service.watch(showState);
  votes.watch(thread.updateAll);
  storage.onFull(() => toast(t("full")));
  conversations.onChange((id) => {
    if (id === open.id && conversations.load(id)) conversations.settle(open);
    else if (id === open.id && !writing.has(id)) return go();
    showAll();
  });
  document.addEventListener("visibilitychange", () => document.hidden || look());
  // Who leaves keeps what was written so far, and does not leave an answer that seems to be written still.
  addEventListener("pagehide", () => {
    for (const { conversation, stop } of writing.values()) {
      stop.abort();
      for (const answer of Object.values(conversation.nodes).flatMap(({ answers }) => answers ?? [])) {
        if (conversations.isOpen(answer)) answer.state = "failed";
      }
      conversations.save(conversation);
    }
  });
}

dress(document);
await words.load(words.preferred());
wire();
follow();
setText($("state"), t("connecting"));
setTwo(two);
$("input").value = storage.tab.read("draft");
go(storage.tab.read("open"));
votes.resume();
service.poll();
look();
words.offer($("language"), () => {
  thread.updateAll();
  showAll();
  showState();
});
if (matchMedia("(hover: hover)").matches) $("input").focus();  // on a touch screen the keyboard would cover the page
