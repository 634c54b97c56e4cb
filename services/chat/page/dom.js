// Makes nodes. Text becomes text nodes, never markup: the page's policy (Trusted Types) refuses markup in strings.
import { icon } from "./icons.js";
import { t } from "./words.js";

const TOAST_MS = 12_000;

export const $ = (id) => document.getElementById(id);

export function make(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// A button with words, an icon, or both; an icon alone gets the words as its name. Words follow the language.
export function button(name, onclick, { image, text = !image, className = "" } = {}) {
  const node = make("button", className);
  node.type = "button";
  if (image) node.append(icon(image));
  if (text) {
    const words = make("span", "label", t(name));
    node.dataset.t = name;
    node.append(words);
  } else {
    node.dataset.tLabel = name;
    node.setAttribute("aria-label", t(name));
    node.title = t(name);
  }
  node.onclick = (event) => {
    if (event.detail < 2) onclick(node);  // the second click of a double click would undo the first
  };
  return node;
}

// The page's own buttons get their icons.
export function dress(root) {
  for (const node of root.querySelectorAll("[data-icon]")) {
    node.prepend(icon(node.dataset.icon));
    if (node.dataset.t) node.append(make("span", "label"));
  }
}

// Hands the person a file.
export function save(name, blob) {
  const url = URL.createObjectURL(blob);
  Object.assign(make("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

export async function copy(text, node) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else copySelected(text);
  node.classList.add("done");
  const before = node.title;
  node.title = t("copied");
  announce(t("copied"));
  setTimeout(() => {
    node.classList.remove("done");
    node.title = before;
  }, 1500);
}

// Where the page comes over plain HTTP from another machine, browsers offer no clipboard.
function copySelected(text) {
  const field = make("textarea", "unseen");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

// Says something for a while. `choices`: by their words, what can be done about it while it is shown.
export function toast(text, choices = {}) {
  const node = $("toast");
  const close = () => { node.hidden = true; };
  const choose = (act) => () => {
    close();
    act();
  };
  const buttons = Object.entries(choices).map(([name, act]) => button(name, choose(act), { className: "text" }));
  node.replaceChildren(make("span", "", text), ...buttons);
  node.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(close, TOAST_MS);
}

// Read out by screen readers, once.
export function announce(text) {
  $("announcer").append(make("p", "", text));
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
