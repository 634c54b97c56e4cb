// Conversations as trees, kept in the browser: a node is a message of the person's or an answer, its siblings are its
// variants, and `chosen` says which of them is shown.
//
//   { id, title, changed, chosen: { parent: node }, nodes: { id: node } }
//   { id, parent, role: "user", text }
//   { id, parent, role: "assistant", answers: [answer], goesOn, comparison }    two are a blind pair, of which one goes on
//   { completion, text, reasoning, versions, state, problem, shownAt }      state: waiting, writing, done, stopped, failed
//
// Several tabs may hold the same conversation. Each writes what it made itself (`mine`) and takes the rest from the others.
import * as storage from "./storage.js";

const KEPT = "conversation:";
const SILENT_MS = 10_000;  // whoever writes an answer saves it more often
const mine = new Set(), removed = new Set();

export function create() {
  return { id: `conv-${storage.newId()}`, title: "", changed: Date.now(), chosen: {}, nodes: {} };
}

export function load(id) {
  const conversation = storage.read(KEPT + id);
  for (const node of Object.values(conversation?.nodes ?? {})) {
    for (const answer of node.answers ?? []) {
      if (isOpen(answer) && !mine.has(node.id) && Date.now() - node.saved > SILENT_MS) answer.state = "failed";
    }
  }
  return conversation;
}

// Newest first.
export function list() {
  const all = storage.names(KEPT).map((name) => storage.read(name)).filter(Boolean);
  return all.map(({ id, title, changed }) => ({ id, title, changed })).sort((a, b) => b.changed - a.changed);
}

export function save(conversation) {
  if (removed.has(conversation.id)) return;
  merge(conversation);
  for (const id of mine) if (conversation.nodes[id]) conversation.nodes[id].saved = Date.now();
  storage.write(KEPT + conversation.id, conversation);
}

// Changes a node that is whole; the conversation then holds the changed one.
export function edit(conversation, id, fields) {
  merge(conversation);
  mine.add(id);
  Object.assign(conversation.nodes[id], fields);
  save(conversation);
  mine.delete(id);
}

// Takes in what other tabs wrote of it.
export function merge(conversation) {
  const kept = storage.read(KEPT + conversation.id);
  for (const [id, node] of Object.entries(kept?.nodes ?? {})) if (!mine.has(id)) conversation.nodes[id] = node;
}

export function remove(id) {
  const kept = storage.read(KEPT + id);
  storage.forget(KEPT + id);
  removed.add(id);
  return () => {
    removed.delete(id);
    storage.write(KEPT + id, kept);
  };
}

export function onChange(changed) {
  storage.onChange(KEPT, (name) => changed(name.slice(KEPT.length)));
}

// A new node, shown from now on. It is written by this tab until `release`.
export function add(conversation, node) {
  node.id = storage.newId();
  mine.add(node.id);
  conversation.nodes[node.id] = node;
  conversation.chosen[node.parent] = node.id;
  conversation.changed = Date.now();
  if (!conversation.title && node.role === "user") conversation.title = node.text.replace(/\s+/g, " ").slice(0, 80);
  save(conversation);
  return node;
}

export function release(node) {
  mine.delete(node.id);
}

export function newAnswer() {
  return { completion: "", text: "", reasoning: "", versions: "", state: "waiting", problem: "", shownAt: 0 };
}

// In the order in which they were made.
export function variants(conversation, parent) {
  return Object.values(conversation.nodes).filter((node) => node.parent === parent);
}

// The nodes that are shown, from the first.
export function path(conversation) {
  const shown = [];
  for (let parent = "";;) {
    const all = variants(conversation, parent);
    const node = all.find(({ id }) => id === conversation.chosen[parent]) ?? all.at(-1);
    if (!node) return shown;
    shown.push(node);
    parent = node.id;
  }
}

// What the model is asked after the person's message `node`: the messages up to it.
export function prompt(conversation, node) {
  const messages = [];
  for (let at = node; at; at = conversation.nodes[at.parent]) {
    messages.unshift({ role: at.role, content: at.role === "user" ? at.text : at.answers[at.goesOn].text });
  }
  return messages;
}

export function isOpen(answer) {
  return answer.state === "waiting" || answer.state === "writing";
}

// Whether the conversation can go on after it.
export function isWhole(node) {
  return node.role === "user" || Boolean(node.answers[node.goesOn].text && !isOpen(node.answers[node.goesOn]));
}
