// Has an answer written: waits for the model where it is not ready, and says with `changed` whenever there is more.
import { events, person, recovered, Refused, request, seen } from "./service.js";
import { t } from "./words.js";

// `asked`: the messages, the conversation, and whose adapter is to answer. Ends when the answers are done, stopped (by
// `signal`) or failed, which their states say. Never throws. Two answers are a comparison: in the service's order, by whom
// is told after the vote (`names`).
export async function write(node, asked, signal, changed) {
  const isPair = node.answers.length > 1, take = isPair ? takePiece : takeChunk;
  try {
    const response = await opened(node, isPair, asked, signal, changed);
    for (const answer of node.answers) Object.assign(answer, { state: "writing", problem: "" });
    for await (const piece of events(response)) {
      if (piece.error) throw new Refused(piece.error.message, 500);
      take(node, piece);
      changed();
    }
    for (const answer of node.answers) {
      answer.state = answer.text ? "done" : "failed";
      answer.problem = answer.text ? "" : t("empty");
    }
  } catch (error) {
    const stopped = error.name === "AbortError";
    for (const answer of node.answers) {
      Object.assign(answer, { state: stopped ? "stopped" : "failed", problem: stopped ? "" : error.message });
    }
  }
  changed();
}

// Who wrote the answers of a comparison that was voted on.
export async function names(node) {
  const found = await (await request(`v1/comparisons/${node.comparison}?user=${encodeURIComponent(person())}`)).json();
  return found.answers.map(({ versions }) => versions.join(" → "));
}

// The engine's loading, and a service that is not there, are waited for: the message is not lost.
async function opened(node, isPair, asked, signal, changed) {
  const body = { ...asked, stream: true, user: person() };
  for (;;) {
    try {
      return await request(isPair ? "v1/comparisons" : "v1/chat/completions", { body, signal });
    } catch (error) {
      if (!(error instanceof Refused) || error.final) throw error;
      for (const answer of node.answers) answer.problem = error.message;
      changed();
      await recovered(error, () => seen.state === "ready", signal);
      signal.throwIfAborted();
    }
  }
}

function takeChunk({ answers: [answer] }, { id, choices, rlhf }) {
  if (id) answer.completion = id;
  if (rlhf) {
    answer.versions = [...new Set(rlhf.versions[0].map((span) => span.policy_version))].join(" → ");
    answer.unlogged = !rlhf.logged;
  }
  grow(answer, choices[0]?.delta?.content, choices[0]?.delta?.reasoning);
}

function takePiece(node, { comparison_id, slot, completion_id, delta, reasoning, final }) {
  node.comparison = comparison_id;
  if (final) {
    for (const answer of node.answers) answer.unlogged = !final.logged;
    return;
  }
  node.answers[slot].completion = completion_id;
  grow(node.answers[slot], delta, reasoning);
}

function grow(answer, text = "", reasoning = "") {
  answer.reasoning += reasoning ?? "";
  answer.text += text ?? "";
  answer.shownAt ||= Date.now();
}
