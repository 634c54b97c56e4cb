// Has an answer written: waits for the model where it is not ready, and says with `changed` whenever there is more.
import { events, person, Refused, request, seen, until } from "./service.js";
import { t } from "./words.js";

const RETRY_MS = 3000;

// Ends when the answer is done, stopped (by `signal`) or failed, which its state says. Never throws.
export async function write(answer, messages, conversation, signal, changed) {
  try {
    const response = await opened(answer, messages, conversation, signal, changed);
    answer.state = "writing";
    answer.problem = "";
    for await (const chunk of events(response)) take(answer, chunk, changed);
    if (!answer.text) answer.problem = t("empty");
    answer.state = answer.text ? "done" : "failed";
  } catch (error) {
    answer.state = error.name === "AbortError" ? "stopped" : "failed";
    answer.problem = error.name === "AbortError" ? "" : error.message;
  }
  changed();
}

// The engine's loading, and a service that is not there, are waited for: the message is not lost.
async function opened(answer, messages, conversation, signal, changed) {
  const body = { messages, stream: true, user: person(), conversation_id: conversation };
  for (;;) {
    try {
      return await request("v1/chat/completions", { body, signal });
    } catch (error) {
      if (!(error instanceof Refused) || error.final) throw error;
      answer.problem = error.message;
      changed();
      await until(() => seen.reachable && seen.state !== "ready", { ms: error.retryMs, signal });
      await until(() => seen.reachable && seen.state === "ready", { ms: RETRY_MS, signal });
      signal.throwIfAborted();
    }
  }
}

function take(answer, chunk, changed) {
  if (chunk.id) answer.completion = chunk.id;
  if (chunk.rlhf) {
    answer.completion = chunk.rlhf.completion_id;
    answer.versions = [...new Set(chunk.rlhf.versions[0].map((span) => span.policy_version))].join(" → ");
    answer.unlogged = !chunk.rlhf.logged;
  }
  if (chunk.error) throw new Refused(chunk.error.message, 500);
  const delta = chunk.choices[0]?.delta;
  answer.reasoning += delta?.reasoning ?? "";
  answer.text += delta?.content ?? "";
  answer.shownAt ||= Date.now();
  changed();
}
