// Conversations as trees, kept in the browser: a node is a message of the person's or an answer, its siblings are its
// variants, and `chosen` says which of them is shown. What the service keeps is grafted onto them (`takeIn`).
//
//   { id, title, changed, chosen: { parent: node }, nodes: { id: node } }
//   { id, parent, role: "user", text, said }    said: the messages that it stands for, where it is not that text alone
//   { id, parent, role: "assistant", answers: [answer], goesOn, comparison }    two are a blind pair, of which one goes on
//   { completion, text, reasoning, versions, state, problem, shownAt }      state: waiting, writing, done, stopped, failed
//
// Several tabs may hold the same conversation. Each writes what it made itself (`mine`) and takes the rest from the others.
// A tab may read what is kept before another's write has reached it, and then write that away: of a node the later save
// stands, and whoever has it writes it once more (`settle`).
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
  for (const id of mine) if (conversation.nodes[id]) stamp(conversation.nodes[id]);
  storage.write(KEPT + conversation.id, conversation);
}

// Each save of a node is later than the one before, by the clock where it has gone on.
function stamp(node) {
  node.saved = Math.max(Date.now(), (node.saved ?? 0) + 1);
}

// Changes a node, which may still be written; the conversation then holds the changed one.
export function edit(conversation, id, fields) {
  merge(conversation);
  stamp(Object.assign(conversation.nodes[id], fields));
  save(conversation);
}

// Takes in what other tabs wrote of it. True if something of it is not kept, or an older save of it.
function merge(conversation) {
  const kept = storage.read(KEPT + conversation.id)?.nodes ?? {};
  const isOlder = ({ id, saved = 0 }) => saved < (conversation.nodes[id]?.saved ?? 0);
  const isLost = Object.values(conversation.nodes).some(({ id }) => !kept[id] || isOlder(kept[id]));
  for (const node of Object.values(kept)) {
    if (!mine.has(node.id) && !isOlder(node)) conversation.nodes[node.id] = node;
  }
  return isLost;
}

// After another tab wrote: takes that in, and writes again what it wrote away.
export function settle(conversation) {
  if (merge(conversation)) save(conversation);
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
  if (!conversation.title && node.role === "user") conversation.title = title(node.text);
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
    const text = at.role === "user" ? at.text : at.answers[at.goesOn].text;
    messages.unshift(...(at.said ?? [{ role: at.role, content: text }]));
  }
  return messages;
}

// The completions that it holds.
export function completions(conversation) {
  const answers = Object.values(conversation.nodes).flatMap(({ answers }) => answers ?? []);
  return new Set(answers.map(({ completion }) => completion.split(" ")[0]).filter(Boolean));
}

// Takes in the exchanges that the service keeps of it, in the order in which they were asked; what it holds stays.
export function takeIn(conversation, exchanges) {
  removed.delete(conversation.id);
  merge(conversation);
  const known = completions(conversation);
  for (const exchange of exchanges) {
    if (known.has(exchange.completion_id)) continue;
    const others = exchanges.filter(({ comparison_id: id }) => id && id === exchange.comparison_id);
    const isPair = others.length === 2, shown = isPair ? others.sort((one, other) => one.slot - other.slot) : [exchange];
    for (const { completion_id: id } of shown) known.add(id);
    const answers = shown.flatMap(({ completion_id: id, answers }) => answers.map((answer) => keptAnswer(id, answer)));
    const parent = asked(conversation, exchange.messages), fields = { parent, role: "assistant", goesOn: 0 };
    const comparison = isPair ? exchange.comparison_id : undefined;
    const nodes = isPair ? [answers] : answers.map((answer) => [answer]);
    const grown = nodes.map((answers) => graft(conversation, { ...fields, answers, comparison }));
    choose(conversation, grown[0]);
    conversation.changed = Math.max(conversation.changed, exchange.finished_ms);
  }
  save(conversation);
}

// The node of the last of these messages; those before it lead there, and are made where they are missing.
function asked(conversation, messages) {
  const turns = [[]];  // the messages of a turn, an answer, the messages of a turn, …
  for (const message of messages) {
    if (isAnswer(message)) turns.push(message, []);
    else turns.at(-1).push(message);
  }
  let parent = "";
  for (const turn of turns) {
    parent = (Array.isArray(turn) ? message(conversation, parent, turn) : answer(conversation, parent, turn)).id;
  }
  return parent;
}

function message(conversation, parent, turn) {
  const text = turn.filter(({ role }) => role === "user").map(({ content }) => content).join("\n\n");
  const isPlain = turn.length === 1 && JSON.stringify(turn[0]) === JSON.stringify({ role: "user", content: text });
  const said = isPlain ? undefined : turn, isSame = (node) => JSON.stringify(node.said) === JSON.stringify(said);
  const found = variants(conversation, parent).find((node) => node.role === "user" && node.text === text && isSame(node));
  if (!found && !conversation.title) conversation.title = title(text);
  return choose(conversation, found) ?? graft(conversation, { parent, role: "user", text, said });
}

function answer(conversation, parent, { content }) {
  for (const node of variants(conversation, parent)) {
    const at = node.answers?.findIndex(({ text }) => text === content) ?? -1;
    if (at >= 0) return choose(conversation, Object.assign(node, { goesOn: at }));
  }
  const answers = [{ ...newAnswer(), text: content, state: "done", unlogged: true }];
  return graft(conversation, { parent, role: "assistant", answers, goesOn: 0 });
}

function keptAnswer(completion, { index, text, reasoning, finish_reason, versions }) {
  return {
    ...newAnswer(), completion: index ? `${completion} ${index}` : completion, text, reasoning,
    versions: versions.join(" → "), state: finish_reason === "abort" ? "stopped" : "done", shownAt: Date.now(),
  };
}

function graft(conversation, node) {
  const grown = { ...node, id: storage.newId() };
  conversation.nodes[grown.id] = grown;
  return choose(conversation, grown);
}

function choose(conversation, node) {
  if (node) conversation.chosen[node.parent] = node.id;
  return node;
}

// One that says more than a text (calls of tools, …) is part of the turn that it stands in.
const isAnswer = (message) => message.role === "assistant" && Object.keys(message).length === 2;
const title = (text) => text.replace(/\s+/g, " ").slice(0, 80);

export function isOpen(answer) {
  return answer.state === "waiting" || answer.state === "writing";
}

// Whether the conversation can go on after it.
export function isWhole(node) {
  return node.role === "user" || Boolean(node.answers[node.goesOn].text && !isOpen(node.answers[node.goesOn]));
}
