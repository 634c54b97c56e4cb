// What became of a vote, as the service tells it; asked anew while somebody looks at it.
import { make, setText } from "./dom.js";
import { person, request, until } from "./service.js";
import { has, t } from "./words.js";

const ASK_MS = 3000;

export function became(event) {
  const node = make("p", "became", t("connecting"));
  node.setAttribute("role", "status");
  follow(node, event);
  return node;
}

async function follow(node, event) {
  do {
    try {
      const path = `v1/feedback/${event}?user=${encodeURIComponent(person())}`;
      setText(node, sentence(await (await request(path)).json()));
    } catch (error) {
      setText(node, error.message);
    }
    await until(() => false, { ms: ASK_MS });
  } while (node.isConnected);
}

// In the reader's language; a state that this page does not know, or that is more than a word, in the service's words.
function sentence({ state, message, reward_version: reward, policy_version: policy, live_since_ms: since }) {
  const time = since && new Date(since).toLocaleString(document.documentElement.lang);
  const isTold = state === "live" ? time : state !== "trained" || !policy;
  return isTold && has(`became.${state}`) ? t(`became.${state}`, { reward, policy, time }) : message;
}
