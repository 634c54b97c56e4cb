// What the service says of itself, as it changes: one stream of server-sent events, read with fetch, as an EventSource
// sends no key. A stream that ends, breaks or falls silent is opened again, later each time; its first event is everything.
import { events, Refused, request } from "../service.js";

const FIRST_MS = 500, LONGEST_MS = 10_000, SILENT_MS = 40_000;  // the service says something every 15 s

// `connection`: "connecting", "connected", "away" (tried again at `againAt`) or "refused" (until there is another key);
// `why`: the reason of the last two. `seenAt`: when the last event came. `may`: the roles of the key. A series is the
// service's: columns of one length, oldest version first.
export const feed = {
  connection: "connecting", why: "", seenAt: 0, againAt: 0, may: [], overview: null, policies: null, rewards: null,
};

export const mayOperate = () => feed.may.includes("operator");

let stop = new AbortController(), wake = () => {};

// Open the stream anew, at once: another key was given.
export function again() {
  stop.abort();
  wake();
}

// Never ends. `changed(names)`: the fields of `feed` that did.
export async function follow(changed) {
  for (let wait = FIRST_MS;;) {
    stop = new AbortController();
    try {
      await read(changed, stop.signal, () => { wait = FIRST_MS; });
      feed.why = "";  // the service has ended the stream in order
    } catch (error) {
      feed.why = error.name === "AbortError" ? "" : error.message;
      feed.connection = error instanceof Refused && error.final ? "refused" : "away";
      if (error.retryMs) wait = Math.max(wait, error.retryMs);
    }
    if (feed.connection === "refused") feed.overview = null;  // what others may see stays on no screen
    else feed.connection = "away";
    const pause = wait * (.75 + Math.random() / 2);  // not all pages at once
    feed.againAt = Date.now() + pause;
    changed(["connection"]);
    await new Promise((resolve) => {
      wake = resolve;
      if (stop.signal.aborted) resolve();
      else if (feed.connection === "away") setTimeout(resolve, pause);
    });
    wait = Math.min(2 * wait, LONGEST_MS);
    feed.connection = "connecting";
    changed(["connection"]);
  }
}

async function read(changed, stopped, isWell) {
  const silence = new AbortController();
  let timer, first = true;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENT_MS);
  };
  try {
    const { roles } = await (await request("v1/caller")).json();
    feed.may = roles;
    const response = await request("v1/console/watch", { signal: AbortSignal.any([silence.signal, stopped]) });
    for await (const { overview, policies, rewards } of events(response, heard)) {
      const news = { policies, rewards }, names = ["overview", ...Object.keys(news).filter((name) => news[name])];
      for (const name of names.slice(1)) feed[name] = first ? news[name] : merged(feed[name], news[name]);
      Object.assign(feed, { overview, seenAt: Date.now(), connection: "connected", why: "" });
      changed(first ? [...names, "connection"] : names);
      first = false;
      isWell();
    }
  } finally {
    clearTimeout(timer);
    silence.abort();
  }
}

// The series with these versions in the place of those of the same names, or after the others.
export function merged(series, news) {
  const at = new Map(series.version.map((name, i) => [name, i]));
  const all = Object.fromEntries(Object.entries(series).map(([name, column]) => [name, [...column]]));
  news.version.forEach((name, i) => {
    const place = at.get(name) ?? all.version.length;
    for (const column of Object.keys(all)) all[column][place] = news[column][i];
  });
  return all;
}
