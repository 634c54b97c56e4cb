// Every version: its figures as charts and as a table, newest first, a page at a time.
import { $, button, make, setText } from "../dom.js";
import { t } from "../words.js";
import { actionButton, hindrance, notPromotable, promote, rollBack } from "./actions.js";
import { csv, download } from "./download.js";
import { feed } from "./feed.js";
import { interval, number, numberOf, percent, predictionSaid, stateName, when } from "./figures.js";
import { Chart, pointAt } from "./plots.js";
import { showReport } from "./report.js";

const PAGE = 50, RANGES = ["50", "200", "all"], SHARE = [0, 1];
const bits = (value) => number(value, 3);
const share = { write: percent, range: () => SHARE };

// By kind: what is drawn, and the columns of the table: [words, value of a place].
const KINDS = {
  policies: {
    x: "policyVersion",
    charts: () => [
      { title: t("reward"), note: t("rewardNote"), y: t("scoreUnit"), write: bits,
        lines: [{ column: "reward", label: t("ofVersion"), colour: "accent" },
                { column: "live_reward", label: t("ofLive"), colour: "dim", dash: [5, 4] }] },
      { title: t("winRate"), note: t("winNote"), y: t("promptsUnit"), ...share, at: .5,
        lines: [line("win_rate", t("ofVersion"))] },
      { title: t("predictedAndSaid"), note: t("predictedNote"), y: t("betterUnit"), ...share, at: .5,
        lines: [line("said", t("peopleSay")), { column: "predicted", label: t("gatePredicts"), colour: "dim", dash: [5, 4] }] },
      { title: t("predictionDots"), note: " ", x: t("gatePredicts"), y: t("peopleSay"), ...share, dots: true,
        lines: [line("said", t("peopleSay")), { column: "predicted", label: t("gatePredicts"), colour: "dim" }] },
      { title: t("accuracy"), note: t("accuracyNote"), y: t("pairsUnit"), ...share, at: .5,
        lines: [line("accuracy", t("ofReward"))] },
      { title: t("thumbs"), note: t("thumbsNote"), y: t("thumbsUnit"), ...share,
        lines: [line("thumbs_share", t("ofVersion"), "thumbs")] },
      { title: t("kl"), note: t("klNote"), y: t("klUnit"), write: bits,
        lines: [{ column: "kl", label: t("ofVersion"), colour: "accent" }] },
      { title: t("length"), y: t("lengthUnit"), write: (value) => number(value, 1),
        lines: [{ column: "length", label: t("ofVersion"), colour: "accent" },
                { column: "live_length", label: t("ofLive"), colour: "dim", dash: [5, 4] }] },
    ],
    columns: [
      ["reward", (s, i) => bits(s.reward[i])],
      ["winRate", (s, i) => withInterval(s, i, "win_rate")],
      ["accuracy", (s, i) => percent(s.accuracy[i])],
      ["thumbs", (s, i) => s.thumbs_share[i] === null ? "–" : `${percent(s.thumbs_share[i])} (${number(s.thumbs_up[i] + s.thumbs_down[i])})`],
      ["kl", (s, i) => bits(s.kl[i])],
      ["length", (s, i) => number(s.length[i], 1)],
    ],
    more: (s, i) => [["parent", s.parent[i]], ["rewardVersion", s.reward_version[i]], ["samples", number(s.samples[i])],
                     ["thumbsInterval", interval(s.thumbs_low[i], s.thumbs_high[i])],
                     ["predictedAndSaid", s.said[i] === null ? "" : t(s.said_by[i] === "pairs" ? "saidByPairs" : "saidByThumbs", {
                       predicted: percent(s.predicted[i]), said: percent(s.said[i]), people: number(s.said_people[i]),
                       interval: interval(s.said_low[i], s.said_high[i]), n: number(s.said_n[i]) })]],
  },
  rewards: {
    x: "rewardVersionAxis",
    charts: () => [
      { title: t("accuracy"), note: t("accuracyNote"), y: t("pairsUnit"), ...share, at: .5, lines: [line("accuracy", t("ofVersion"))] },
      { title: t("auc"), note: t("aucNote"), y: t("pairsUnit"), ...share, at: .5, lines: [line("thumb_auc", t("ofVersion"))] },
      { title: t("ece"), y: t("eceUnit"), write: bits, lines: [{ column: "ece", label: t("ofVersion"), colour: "accent" }] },
    ],
    columns: [
      ["accuracy", (s, i) => withInterval(s, i, "accuracy")],
      ["auc", (s, i) => withInterval(s, i, "thumb_auc")],
      ["ece", (s, i) => bits(s.ece[i])],
    ],
    more: (s, i) => [["heldOutPairs", number(s.accuracy_n[i])], ["heldOutThumbs", number(s.thumb_n[i])]],
  },
};

let root = null, table = null, tools = null, plots = null, charts = [], kind = "policies", range = "200", page = 0, expanded = "", drawn = "";

function line(column, label, prefix = column) {
  return { column, label, colour: "accent", low: `${prefix}_low`, high: `${prefix}_high` };
}

const withInterval = (s, i, name) => s[name][i] === null ? "–"
  : `${percent(s[name][i])}${s[`${name}_low`][i] === null ? "" : ` (${interval(s[`${name}_low`][i], s[`${name}_high`][i])})`}`;

export function open(node) {
  root = node;
  tools = make("div", "toolbar");
  plots = make("div", "plots");
  table = make("section", "versions");
  root.replaceChildren(tools, plots, table);
  showTools();
  showCharts();
  drawn = "";
  showTable();
}

export function close() {
  for (const chart of charts) chart.destroy();
  charts = [];
  root = null;
}

export function update(names) {
  if (names.includes(kind)) drawCharts();
  if (names.includes("overview")) captionDots();
  if (names.includes(kind) || names.includes("connection") || names.includes("overview")) showTable();
}

export const actions = {
  previous: () => step(-1), next: () => step(1), newer: () => turn(-1), older: () => turn(1), export: saveCsv,
  rollBack: () => rollBack(kind === "policies" ? "policy" : "reward"),
  report: () => {
    const version = chosen();
    if (version && kind === "policies") showReport(version);
  },
  promote: () => {
    const version = chosen(), at = feed[kind].version.indexOf(version);
    if (at >= 0 && !hindrance() && !notPromotable(version, feed[kind].state[at])) promote(version);
  },
};

function showTools() {
  const kinds = Object.keys(KINDS).map((name) => {
    const node = button(name, () => {
      kind = name;
      page = 0;
      expanded = "";
      close();
      open(tools.parentElement);
      tools.querySelector(`[data-t=${name}]`).focus();
    });
    node.setAttribute("aria-pressed", name === kind);
    return node;
  });
  const select = make("select");
  for (const each of RANGES) select.append(new Option(t(each === "all" ? "allVersions" : "lastVersions", { n: each }), each));
  select.value = range;
  select.setAttribute("aria-label", t("shownVersions"));
  select.onchange = () => {
    range = select.value;
    drawCharts();
  };
  const key = make("p", "marks quiet", make("span", "cross", "×"), ` ${t("markFailed")}  `, make("span", "ring", "○"), ` ${t("markRejected")}`);
  tools.replaceChildren(make("div", "choice", ...kinds), select, button("saveCsv", saveCsv), button("saveJson", saveJson), key);
}

// ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function showCharts() {
  charts = KINDS[kind].charts().map((options) => new Chart({ x: t(KINDS[kind].x), ...options }));
  plots.replaceChildren(...charts.map(({ figure }) => figure));
  drawCharts();
  captionDots();
}

// How well prediction and people meet, below their dots.
function captionDots() {
  for (const { dots, figure } of charts) if (dots) setText(figure.querySelector("figcaption"), predictionSaid());
}

const firstShown = () => range === "all" ? 0 : Math.max(0, feed[kind].version.length - Number(range));

function drawCharts() {
  const first = firstShown();
  const rows = Object.fromEntries(Object.entries(feed[kind]).map(([name, column]) => [name, column.slice(first)]));
  Object.assign(rows, { names: rows.version, xs: rows.version.map(numberOf) });
  for (const chart of charts) chart.show(chart.dots ? alongPrediction(rows) : rows);
}

// The versions of which both are known, by what was predicted.
function alongPrediction(rows) {
  const known = rows.xs.map((_, i) => i).filter((i) => rows.predicted[i] !== null && rows.said[i] !== null);
  known.sort((a, b) => rows.predicted[a] - rows.predicted[b]);
  const sorted = Object.fromEntries(Object.entries(rows).map(([name, column]) => [name, known.map((i) => column[i])]));
  return Object.assign(sorted, { xs: sorted.predicted });
}

// ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────

const pages = () => Math.max(1, Math.ceil(feed[kind].version.length / PAGE));

function showTable() {
  const series = feed[kind], count = series.version.length, last = count - 1 - page * PAGE;
  const places = Array.from({ length: Math.min(PAGE, last + 1) }, (_, i) => last - i);
  const state = JSON.stringify([kind, hindrance(), feed.overview.live, expanded, document.documentElement.lang,
                                places.map((i) => Object.values(series).map((column) => column[i]))]);
  if (state === drawn) return;
  drawn = state;
  const focused = document.activeElement?.closest?.("[data-version]")?.dataset.version;
  const head = ["version", "state", "stateSince", ...KINDS[kind].columns.map(([words]) => words)];
  const grid = make("table", "", make("thead", "", make("tr", "", ...head.map((words) => heading(t(words))))),
                    make("tbody", "", ...places.flatMap((i) => rowsOf(series, i))));
  const box = make("div", "wide-table", grid);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", t("viewVersions"));
  table.replaceChildren(box, pager(count, places));
  if (focused) table.querySelector(`[data-version="${focused}"]`)?.focus({ preventScroll: true });
}

function heading(text) {
  const node = make("th", "", text);
  node.scope = "col";
  return node;
}

function rowsOf(series, i) {
  const version = series.version[i], open = version === expanded;
  const name = button("version", () => expand(version), { className: "text" });
  delete name.dataset.t;
  name.replaceChildren(version);
  name.dataset.version = version;
  name.setAttribute("aria-expanded", open);
  const state = make("span", `badge ${series.state[i]}`, stateName(series.state[i]));
  const row = make("tr", open ? "open" : "", make("th", "", name), make("td", "", state), make("td", "", when(series.changed_ms[i])),
                   ...KINDS[kind].columns.map(([, value]) => make("td", "", value(series, i))));
  row.firstChild.scope = "row";
  return open ? [row, details(series, i)] : [row];
}

function details(series, i) {
  const version = series.version[i], cell = make("td"), list = make("dl");
  const facts = [["made", when(series.created_ms[i])], ["firstLive", when(series.first_live_ms[i])],
                 ["because", series.reason[i]], ...KINDS[kind].more(series, i)];
  for (const [words, value] of facts) if (value) list.append(make("dt", "", t(words)), make("dd", "", value));
  const no = notPromotable(version, series.state[i]);
  cell.colSpan = 3 + KINDS[kind].columns.length;
  cell.append(list, actionButton("promote", () => promote(version), no), ...(no ? [make("span", "quiet", ` ${no}`)] : []));
  if (kind === "policies") cell.append(" ", actionButton("report", () => showReport(version)));
  return make("tr", "details", cell);
}

function expand(version) {
  expanded = expanded === version ? "" : version;
  showTable();
  const at = feed[kind].version.indexOf(version) - firstShown();
  if (expanded && at >= 0) pointAt(at, charts.slice(0, 1));
}

function pager(count, places) {
  const newer = button("newerPage", () => turn(-1)), older = button("olderPage", () => turn(1));
  newer.disabled = page === 0;
  older.disabled = page >= pages() - 1;
  const said = places.length ? t("pageOf", { first: number(page * PAGE + 1), last: number(page * PAGE + places.length), count: number(count) }) : t("noVersions");
  return make("div", "row pager", newer, make("span", "quiet", said), older);
}

function turn(by) {
  const wanted = Math.min(Math.max(page + by, 0), pages() - 1);
  if (wanted === page) return;
  page = wanted;
  showTable();
  table.querySelector("[data-version]")?.focus();
}

function step(by) {
  const all = [...table.querySelectorAll("[data-version]")], at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.min(Math.max(at + by, 0), all.length - 1)]?.focus();
}

const chosen = () => document.activeElement?.dataset?.version ?? expanded;

function saveCsv() {
  download(`${kind}.csv`, "text/csv", csv(feed[kind]));
}

function saveJson() {
  const { version } = feed[kind];
  const rows = version.map((_, i) => Object.fromEntries(Object.entries(feed[kind]).map(([name, column]) => [name, column[i]])));
  download(`${kind}.json`, "application/json", JSON.stringify(rows, null, 1));
}
