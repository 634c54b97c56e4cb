// Versions side by side: one prompt, the answer of each version that the engine has loaded, by name, as it is written.
import { button, make, setText } from "../dom.js";
import { show } from "../markdown.js";
import { events, request } from "../service.js";
import * as storage from "../storage.js";
import { t } from "../words.js";
import { feed } from "./feed.js";

let field = null, versions = null, ask = null, answers = null, problem = null, stop = null, running = false;

export function open(root) {
  field = make("textarea");
  Object.assign(field, { rows: 3, value: storage.tab.read("compared") });
  field.setAttribute("aria-label", t("prompt"));
  field.placeholder = t("prompt");
  field.oninput = () => storage.tab.write("compared", field.value);
  field.onkeydown = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    run();
  };
  versions = make("fieldset", "which", make("legend", "", t("loadedVersions")));
  ask = make("button", "primary", t("askAll"));
  problem = make("p", "problem");
  problem.setAttribute("role", "alert");
  answers = make("div", "side-by-side");
  const form = make("form", "compare", field, versions, make("div", "row", ask, button("stop", actions.leave)), make("p", "quiet", t("compareNote")));
  form.onsubmit = (event) => {
    event.preventDefault();
    run();
  };
  root.replaceChildren(form, problem, answers);
  permit();
}

export function close() {
  stop?.abort();
}

// Another version may have been loaded; what was ticked stays.
export function update(names) {
  if (names.includes("policies")) permit();
}

export const actions = { write: () => field.focus(), leave: () => stop?.abort() };

function permit() {
  const may = feed.may.includes("chat") || feed.may.includes("operator");
  ask.disabled = !may || running;
  setText(problem, may ? "" : t("needsChat", { roles: feed.may.join(", ") }));
  if (may) loadVersions();
}

async function loadVersions() {
  try {
    const { data } = await (await request("v1/models")).json();
    const before = new Map([...versions.querySelectorAll("input")].map(({ value, checked }) => [value, checked]));
    const boxes = data.map(({ id }) => id).filter((id) => id.startsWith("policy-")).map((id) => {
      const box = make("input");
      Object.assign(box, { type: "checkbox", value: id, checked: before.get(id) ?? true });
      return make("label", "tag", box, id);
    });
    versions.replaceChildren(versions.firstChild, ...boxes);
  } catch (error) {
    setText(problem, error.message);
  }
}

async function run() {
  const text = field.value.trim(), chosen = [...versions.querySelectorAll("input:checked")].map(({ value }) => value);
  if (!text || ask.disabled) return;
  setText(problem, chosen.length ? "" : t("noneChosen"));
  stop = new AbortController();
  running = ask.disabled = true;
  const parts = chosen.map((version) => new Part(version));
  answers.replaceChildren(...parts.map(({ node }) => node));
  await Promise.all(parts.map((part) => part.write(text, stop.signal)));
  running = ask.disabled = false;
}

// One version's answer.
class Part {
  constructor(version) {
    this.version = version;
    this.text = make("div", "markdown");
    this.about = make("p", "about", `${t("writing")}…`);
    this.node = make("article", "part", make("h2", "", version), this.text, this.about);
  }

  async write(prompt, signal) {
    let text = "";
    try {
      const body = { model: this.version, messages: [{ role: "user", content: prompt }], stream: true };
      for await (const piece of events(await request("v1/chat/completions", { body, signal }))) {
        if (piece.error) throw new Error(piece.error.message);
        text += piece.choices[0]?.delta?.content ?? "";
        show(this.text, text);
      }
      setText(this.about, text ? "" : t("empty"));
    } catch (error) {
      setText(this.about, error.name === "AbortError" ? t("stopped") : error.message);
    }
  }
}
