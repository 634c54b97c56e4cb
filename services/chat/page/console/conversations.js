// Words in people's conversations, for operators: where they stand, the newest first, and each conversation as a whole.
import { button, make, setText } from "../dom.js";
import { show } from "../markdown.js";
import { request } from "../service.js";
import { t } from "../words.js";
import { download } from "./download.js";
import { feed, mayOperate } from "./feed.js";
import { when } from "./figures.js";

let field = null, look = null, results = null, reading = null, problem = null, last = 0;

export function open(root) {
  field = make("input");
  Object.assign(field, { type: "search", maxLength: 200, autocomplete: "off" });
  field.setAttribute("aria-label", t("searchWords"));
  field.placeholder = t("searchWords");
  look = make("button", "primary", t("search"));
  problem = make("p", "problem");
  problem.setAttribute("role", "alert");
  results = make("ol", "found");
  reading = make("article", "reading");
  reading.tabIndex = -1;
  const form = make("form", "search", field, look);
  form.onsubmit = (event) => {
    event.preventDefault();
    results.replaceChildren();
    reading.replaceChildren();
    if (field.value.trim() && !look.disabled) find(field.value.trim(), "", ++last);
  };
  root.replaceChildren(form, make("p", "quiet", t("searchNote")), problem, make("div", "beside", results, reading));
  permit();
}

export function close() {
  last++;  // what is still under way is for nobody
}

export function update() {
  permit();
}

export const actions = {
  write: () => field.focus(), previous: () => step(-1), next: () => step(1),
  export: () => reading.querySelector("button")?.click(),
};

function permit() {
  if (field.disabled === !mayOperate()) return;
  field.disabled = look.disabled = !field.disabled;
  setText(problem, field.disabled ? t("searchNeeds", { roles: feed.may.join(", ") }) : "");
}

// The service reads a bounded part a time, which may hold nothing: it is asked on until something is found, or all was read.
async function find(words, after, mine) {
  setText(problem, t("searching"));
  try {
    let found = [], next = after;
    do {
      const query = new URLSearchParams({ query: words, after: next });
      ({ found, next } = await (await request(`v1/console/conversations?${query}`)).json());
      if (mine !== last) return;
    } while (!found.length && next);
    results.querySelector(":scope > .more")?.remove();
    results.append(...found.map(item));
    if (next) results.append(make("li", "more", button("earlier", () => find(words, next, ++last))));
    setText(problem, results.children.length ? "" : t("nothingFound"));
  } catch (error) {
    setText(problem, error.message);
  }
}

function item({ person, conversation_id: id, finished_ms: at, snippet }) {
  const node = make("button", "hit", make("span", "", snippet), make("span", "quiet", when(at)));
  node.type = "button";
  node.onclick = () => read(person, id, node);
  return make("li", "", node);
}

async function read(person, id, node) {
  const mine = ++last;
  try {
    const path = `v1/console/conversations/${encodeURIComponent(person)}/${encodeURIComponent(id)}`, exchanges = [];
    for (let more = true; more;) {
      const after = exchanges.at(-1)?.completion_id ?? "";
      const page = await (await request(`${path}?after=${encodeURIComponent(after)}`)).json();
      if (mine !== last) return;
      exchanges.push(...page.exchanges);
      ({ more } = page);
    }
    for (const hit of results.querySelectorAll(".hit")) hit.removeAttribute("aria-current");
    node.setAttribute("aria-current", "true");
    const lines = exchanges.map((exchange) => JSON.stringify({ person, conversation_id: id, ...exchange })).join("\n");
    const save = button("saveConversation", () => download("conversation.jsonl", "application/x-ndjson", `${lines}\n`));
    reading.replaceChildren(make("div", "row", save), ...exchanges.map(exchangeNode));
    reading.focus();
    setText(problem, "");
  } catch (error) {
    setText(problem, error.message);
  }
}

// What was asked last, each answer with who wrote it, and the person's votes as they were sent.
function exchangeNode({ started_ms: at, messages, answers, votes }) {
  const asked = messages.at(-1)?.content ?? "", node = make("section", "exchange", make("p", "quiet", when(at)));
  node.append(make("p", "said", typeof asked === "string" ? asked : JSON.stringify(asked)));
  for (const { text, versions } of answers) {
    const written = make("div", "markdown");
    show(written, text);
    node.append(make("p", "quiet", versions.join(" → ") || t("unnamed")), written);
  }
  if (votes.length) node.append(make("pre", "quiet", votes.map((vote) => JSON.stringify(vote)).join("\n")));
  return node;
}

function step(by) {
  const all = [...results.querySelectorAll("button")], at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.min(Math.max(at + by, 0), all.length - 1)]?.focus();
}
