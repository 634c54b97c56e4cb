// Talks to the chat service. What fails is a sentence for people, and says whether it is worth trying again.
import * as storage from "./storage.js";
import { t } from "./words.js";

const POLL_READY_MS = 2000, POLL_AWAY_MS = 700, RETRY_MS = 5000;

// The service as it was last seen: /readyz's fields, `reachable`, and when.
export const seen = { reachable: true, state: "", message: "", serving: "", log: "ok", at: 0 };
const watchers = new Set();
let askForKey = async () => null, asking = null;

// `final`: the same request would be refused again, else it may be sent after `retryMs`. `status`: 0 if nothing answered.
export class Refused extends Error {
  constructor(message, status, retryMs = 500) {
    super(message);
    this.status = status;
    this.retryMs = retryMs;
    this.final = status >= 400 && status < 500 && status !== 429;
  }
}

export function onKeyNeeded(ask) {
  askForKey = ask;
}

// The name under which this browser chats and votes where no key names anybody.
export function person() {
  const name = storage.read("person") ?? `page-${storage.newId()}`;
  storage.write("person", name);
  return name;
}

// Where a key is needed the person is asked for one, unless `ask` is false.
export async function request(path, { body, signal, method = body ? "POST" : "GET", ask = true } = {}) {
  for (;;) {
    const key = storage.tab.read("key");
    const headers = { ...(body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
    let response;
    try {
      response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(t("unreachable"), 0);
    }
    if (response.ok) return response;
    const reply = await response.json().catch(() => null);  // a proxy in between may answer in HTML
    const message = reply?.error?.message ?? t("http", { status: response.status });
    if (response.status !== 401 || !ask) throw new Refused(message, response.status, retryAfter(response));
    if (key === storage.tab.read("key")) await newKey(message);
  }
}

function retryAfter(response) {
  return 1000 * (parseFloat(response.headers.get("Retry-After")) || .5);
}

// The events of a stream; a whole one ends with [DONE]. `heard` is called for all that comes, comments too.
export async function* events(response, heard = () => {}) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) throw new Refused(t("broke"), 0);
    heard();
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith(":")) continue;  // a comment, so that nobody between takes the silence for an end
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

export function watch(changed) {
  watchers.add(changed);
  return () => watchers.delete(changed);
}

// Resolves when `condition()` is true of what is seen, or after `ms`, or when `signal` aborts.
export function until(condition, { ms, signal } = {}) {
  return new Promise((resolve) => {
    if (condition()) return resolve();
    const end = () => {
      unwatch();
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const unwatch = watch(() => condition() && end());
    const timer = ms && setTimeout(end, ms);
    signal?.addEventListener("abort", end);
  });
}

// After a request failed: resolves when it is worth trying again. A service that says how long it wants peace gets it.
export function recovered({ status, retryMs }, isWell, signal) {
  const failed = Date.now();
  const isBack = () => status !== 429 && seen.at > failed && seen.reachable && isWell();
  return until(isBack, { ms: status === 429 ? retryMs : Math.max(retryMs, RETRY_MS), signal });
}

export async function poll() {
  try {
    Object.assign(seen, await (await fetch("readyz")).json(), { reachable: true });
  } catch {
    seen.reachable = false;
  }
  seen.at = Date.now();
  for (const changed of [...watchers]) changed();
  const isWell = seen.reachable && seen.state === "ready" && seen.log === "ok";
  setTimeout(poll, isWell ? POLL_READY_MS : POLL_AWAY_MS);
}

// One question for however many requests were refused at once. Raises Refused if nobody gives a key.
async function newKey(why) {
  asking ??= askForKey(why).finally(() => { asking = null; });
  const key = await asking;
  if (!key) throw new Refused(t("noKey"), 401);
  storage.tab.write("key", key);
}
