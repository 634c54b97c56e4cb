// What the service keeps of the person: their conversations, from whichever browser; all of it as a file; erasing.
import { save } from "./dom.js";
import { person, request } from "./service.js";

export const FILE = "conversations.jsonl";

// `rows`: as GET /v1/conversations lists them, the last changed first; `more`: there are others behind them. `refused`: a
// key is needed, and nobody was asked for one.
export const seen = { rows: [], more: false, refused: false };

// Looks anew. Where a key is needed the person is asked for it only if they want to see (`ask`). Throws Refused.
export async function look(ask) {
  try {
    const { conversations, more } = await page("v1/conversations", {}, ask);
    Object.assign(seen, { rows: conversations, more, refused: false });
  } catch (error) {
    if (error.status !== 401) throw error;
    Object.assign(seen, { rows: [], more: false, refused: true });
  }
}

export async function lookFurther() {
  const { conversations, more } = await page("v1/conversations", { after: seen.rows.at(-1).conversation_id });
  Object.assign(seen, { rows: [...seen.rows, ...conversations], more });
}

// Of a conversation, in the order in which they were asked.
export async function exchanges(id) {
  const all = [];
  for (let more = true; more;) {
    const after = all.length ? { after: all.at(-1).completion_id } : {}, found = await page(path(id), after);
    all.push(...found.exchanges);
    more = found.more;
  }
  return all;
}

// For good.
export async function erase(id) {
  await request(own(path(id)), { method: "DELETE" });
  seen.rows = seen.rows.filter((row) => row.conversation_id !== id);
}

// Saves all that is kept of the person as a file of theirs.
export async function download() {
  save(FILE, await (await request(own("v1/export"))).blob());
}

async function page(path, values, ask = true) {
  return (await request(own(path, values), { ask })).json();
}

const path = (id) => `v1/conversations/${encodeURIComponent(id)}`;
const own = (path, values = {}) => `${path}?${new URLSearchParams({ user: person(), ...values })}`;
