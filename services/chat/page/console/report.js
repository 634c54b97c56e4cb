// What the gate found of a version, over the view that it was asked for in: each check, by how much, answers side by side.
import { $, make, setText } from "../dom.js";
import { request } from "../service.js";
import { t } from "../words.js";
import { hindrance } from "./actions.js";
import { number } from "./figures.js";

export async function showReport(version) {
  const dialog = $("report");
  if (dialog.open || hindrance()) return;
  setText($("report-title"), t("reportOf", { version }));
  const body = $("report-body");
  body.replaceChildren(make("p", "quiet", t("searching")));
  dialog.showModal();
  try {
    const report = await (await request(`v1/versions/${encodeURIComponent(version)}/report`)).json();
    body.replaceChildren(...report.checks.map((check) => section(check, report.examples)));
  } catch (error) {
    const problem = make("p", "problem", error.message);
    problem.setAttribute("role", "alert");
    body.replaceChildren(problem);
  }
}

function section(check, examples) {
  const { name, passed } = check, badge = make("span", `badge ${passed ? "live" : "rejected"}`, t(passed ? "checkPassed" : "checkObjects"));
  const node = make("section", "check", make("h3", "", make("code", "", name), " ", badge));
  node.append(...check.objections.map((words) => make("p", "objection", words)), ...check.notes.map((words) => make("p", "quiet", words)));
  const figures = { ...check.figures, ...Object.fromEntries(Object.entries(check.limits).map(([limit, value]) => [`gate.${name}.${limit}`, value])) };
  // A table says the figures of its rows itself.
  if (!check.rows.length) node.append(list(figures));
  else node.append(table(name, check.rows));
  if (check.examples.length) node.append(sideBySide(check.examples.map((place) => examples[place])));
  return node;
}

const write = (value) => typeof value === "number" ? number(value, 4) : value === null ? "–" : String(value);

function list(values) {
  const node = make("dl");
  for (const [name, value] of Object.entries(values)) node.append(make("dt", "", name), make("dd", "", write(value)));
  return node;
}

function table(name, rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const cells = (tag, values) => make("tr", "", ...values.map((value) => make(tag, "", value)));
  const head = cells("th", columns);
  for (const node of head.children) node.scope = "col";
  const body = rows.map((row) => cells("td", columns.map((column) => column in row ? write(row[column]) : "–")));
  return scrolled(name, make("table", "", make("thead", "", head), make("tbody", "", ...body)));
}

// What is wider than the screen is reached by keys, too.
function scrolled(name, ...children) {
  const node = make("div", "wide-table", ...children);
  node.tabIndex = 0;
  node.setAttribute("role", "region");
  node.setAttribute("aria-label", name);
  return node;
}

function sideBySide(examples) {
  const node = make("details", "examples", make("summary", "", t("sideBySide", { n: examples.length })));
  for (const { prompt, live, candidate, live_score: liveScore, score } of examples) {
    node.append(make("p", "asked", prompt), make("div", "side-by-side",
                part(t("ofLive"), live, liveScore), part(t("ofVersion"), candidate, score)));
  }
  return node;
}

function part(title, text, score) {
  const told = score === null ? title : `${title} (${t("scoreUnit")} ${number(score, 2)})`;
  return make("div", "part", make("h4", "", told), make("p", "said", text || "–"));
}
