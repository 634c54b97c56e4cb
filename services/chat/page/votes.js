// Votes, kept until the service has them. What a person thinks of a subject (an answer, a pair) is one value that may
// change; each change is sent once, under a key of its own that is kept before it is sent: a vote that got through
// although its reply was lost is the same vote when it is sent again, by this tab or another one.
//
//   { subject, wanted, given: { value, event } | null, pending: { key, value, replaces, ms } | null,
//     takenBack, problem, refused }
//
// wanted ≠ given → pending → sent → given; null takes the vote back.
import { person, recovered, request, seen } from "./service.js";
import * as storage from "./storage.js";

const KEPT = "vote:";
const sending = new Set(), watchers = new Set();

// `subject` is all that a vote's body needs beside its value: see `body`.
export const nameOf = (subject) => `${KEPT}${subject.kind}:${subject.answers.join(" ")}`;

export function load(subject) {
  return storage.read(nameOf(subject)) ?? { subject, wanted: null, given: null, pending: null, problem: "" };
}

export function watch(changed) {
  watchers.add(changed);
}

// The value from now on; null takes it back.
export function set(subject, value, shownAt) {
  const slot = load(subject);
  slot.wanted = value;
  slot.ms = shownAt ? Math.max(0, Date.now() - shownAt) : 0;
  keep(slot);
  settle(nameOf(subject));
}

// Takes in the votes that the service keeps of these exchanges, where none is known here.
export function takeIn(conversation, exchanges) {
  const all = exchanges.flatMap(({ votes }) => votes).toReversed(), gone = new Set(all.map(({ replaces }) => replaces));
  for (const vote of all) {
    const slot = gone.has(vote.event_id) ? null : asSlot(vote);
    if (!slot) continue;
    const subject = { ...slot.subject, conversation }, given = { value: slot.value, event: vote.event_id };
    if (!storage.read(nameOf(subject))) keep({ ...load(subject), wanted: slot.value, given });
  }
}

// Of a pair the answers stand as they were shown, which the service knows.
function asSlot({ thumb, correction, pairwise, shown, reason, reasons }) {
  if (thumb) {
    const value = { up: thumb.up, reason, reasons };
    return { subject: { kind: "thumb", answers: [name(thumb.answer)] }, value };
  }
  if (correction) return { subject: { kind: "correction", answers: [name(correction.answer)] }, value: { text: correction.text } };
  if (!pairwise || pairwise.unsure || shown.length !== 2) return null;
  const tie = reason === "both bad" ? "bad" : "same", answers = shown.map(name);
  const choice = pairwise.tie ? tie : ["left", "right"][answers.indexOf(name(pairwise.chosen))];
  return { subject: { kind: "pair", answers }, value: { choice } };
}

// An answer's name is its completion's id, and behind that its index, where it is not the first.
const name = ({ completion_id: id, index }) => (index ? `${id} ${index}` : id);

function answerOf(name) {
  const [completion_id, index] = name.split(" ");
  return { completion_id, index: Number(index ?? 0) };
}

// Sends what an earlier visit, or another tab that was closed, left unsent.
export function resume() {
  for (const name of storage.names(KEPT)) settle(name);
  storage.onChange(KEPT, tell);
}

async function settle(name) {
  if (sending.has(name)) return;
  sending.add(name);
  while (prepare(name)) await send(name);
  sending.delete(name);
}

// Whether there is something to send.
function prepare(name) {
  const slot = storage.read(name);
  if (!slot) return false;
  if (!slot.pending && same(slot.wanted, slot.given?.value ?? null)) return false;
  if (!slot.pending) {
    slot.pending = { key: storage.newId(), value: slot.wanted, replaces: slot.given?.event ?? "", ms: slot.ms };
    keep(slot);
  }
  return true;
}

async function send(name) {
  const { subject, pending } = storage.read(name);
  let event, problem = "", refused = false, failure = null;
  try {
    event = (await (await request("v1/feedback", { body: body(subject, pending) })).json()).event_id;
  } catch (error) {
    problem = error.message;
    refused = error.final;
    failure = error;
  }
  const slot = storage.read(name);
  if (slot?.pending?.key !== pending.key) return;  // another tab was told first
  if (event) {
    slot.given = pending.value === null ? null : { value: pending.value, event };
    slot.takenBack = pending.value === null;
  }
  if (refused && same(slot.wanted, pending.value)) slot.wanted = slot.given?.value ?? null;
  if (event || refused) slot.pending = null;
  keep({ ...slot, problem, refused });
  if (event || refused) return;
  await recovered(failure, () => seen.log === "ok");
}

function body(subject, { key, value, replaces, ms }) {
  const [first, second] = subject.answers.map(answerOf);
  const about = { user: person(), conversation_id: subject.conversation, source: "page", idempotency_key: key };
  const common = { ...about, ...(replaces && { replaces }), response_ms: ms };
  if (value === null) return { ...common, withdrawal: { answer: first } };
  switch (subject.kind) {
    case "thumb": return { ...common, thumb: { answer: first, up: value.up }, reason: value.reason, reasons: value.reasons };
    case "correction": return { ...common, correction: { answer: first, text: value.text } };
    default: {
      const [chosen, rejected] = value.choice === "right" ? [second, first] : [first, second];
      const tie = value.choice === "same" || value.choice === "bad";
      const reason = value.choice === "bad" ? "both bad" : "";
      return { ...common, pairwise: { chosen, rejected, tie }, shown: [first, second], reason };
    }
  }
}

function keep(slot) {
  storage.write(nameOf(slot.subject), slot);
  tell(nameOf(slot.subject));
}

function tell(name) {
  for (const changed of watchers) changed(name);
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
