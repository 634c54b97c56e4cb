// How it stands: what serves, the votes and how soon they are lived by, learning, and what happened to versions.
import { button, make, setText } from "../dom.js";
import { request } from "../service.js";
import { t } from "../words.js";
import { actionButton, changeWeights, pauseOrResume, permit, rollBack } from "./actions.js";
import { feed } from "./feed.js";
import { clock, duration, number, predictionSaid, since, when } from "./figures.js";
import { Bars } from "./plots.js";

const PAGE = 20, MINUTE_MS = 60_000;
let root = null, cards = null, monitors = null, list = null, votes = null, delays = null, events = [], more = false, asked = 0, problem = "";
let swappedAt = 0;

// A title, a figure, sentences and buttons, which stay the same nodes: who is about to press one does.
class Card {
  constructor(title, ...buttons) {
    this.figure = make("p", "big");
    this.sentences = make("div");
    this.buttons = buttons;
    this.node = make("section", "card", make("h2", "", title), this.figure, this.sentences, make("div", "row", ...buttons));
  }

  show(figure, ...sentences) {
    setText(this.figure, figure);
    const said = sentences.filter(Boolean);
    if (this.said === said.join("\n")) return;
    this.said = said.join("\n");
    this.sentences.replaceChildren(...said.map((text) => make("p", "quiet", text)));
  }
}

export function open(node) {
  root = node;
  list = make("section", "events");
  monitors = make("tbody");
  votes = new Bars({ title: t("votesPerMinute"), x: t("time"), y: t("votesUnit"), writeX: (x) => clock(x * MINUTE_MS),
                     splits: tens });
  delays = new Bars({ title: t("clickToLive"), x: t("delayUnit"), y: t("votesUnit"), splits: binEdges, writeX: edgeName });
  cards = {
    live: new Card(t("liveVersion"), actionButton("rollBack", () => rollBack())),
    votes: new Card(t("votes")), backlog: new Card(t("backlog")), delay: new Card(t("clickToLive")),
    gate: new Card(t("gateAndPeople")),
    learning: new Card(t("learning"), actionButton("pause", pauseOrResume), actionButton("resume", pauseOrResume),
                       actionButton("weights", changeWeights)),
  };
  const nodes = Object.values(cards).map(({ node: card }) => card);
  root.replaceChildren(make("div", "cards", ...nodes), make("div", "plots", votes.figure, delays.figure), watchTable(), list);
  events = [];
  update(["policies"]);
}

export function close() {
  votes.destroy();
  delays.destroy();
  root = null;
}

export function update(names) {
  showCards();
  showVotes();
  showWatch();
  const { swapped_ms: swapped } = feed.overview;
  if (swapped !== swappedAt || names.includes("policies") || names.includes("rewards")) load();
  swappedAt = swapped;
}

export const actions = { pause: pauseOrResume, rollBack: () => rollBack(), weights: changeWeights };

function showCards() {
  const { live, serving, engine, learning, trainer, votes: flow, click_to_live: delay, prediction, now_ms: now } = feed.overview;
  cards.live.show(live.policy ?? t("none"), liveSince(live.policy),
                  serving === (live.policy ?? "") ? "" : t("stillServing", { version: serving || t("none") }),
                  t("engineIs", { state: t(`engine.${engine}`) }), t("rewardIs", { version: live.reward ?? t("none") }));
  cards.votes.show(t("lastMinute", { n: number(flow.per_minute.at(-1) ?? 0) }), t("lastHour", { n: number(hourly()) }),
                   t("inAll", { n: number(flow.total) }));
  cards.backlog.show(number(flow.backlog), flow.oldest_waiting_ms
    ? t("oldestWaits", { time: duration((now - flow.oldest_waiting_ms) / 1000) }) : t("nothingWaits"));
  cards.delay.show(duration(delay.p50_s), delay.votes ? quantiles(delay) : t("nothingYet"));
  cards.gate.show(t(prediction.alarm ? "haveParted" : prediction.versions ? "meet" : "tooEarly"), predictionSaid());
  cards.gate.node.classList.toggle("alarming", Boolean(prediction.alarm));
  cards.learning.show(t(learning.paused ? "paused" : trainer.updated_ms ? "running" : "unknown"), ...learningLines(learning, trainer));
  const [rolls] = cards.live.buttons, [pauses, resumes, weighs] = cards.learning.buttons;
  permit(rolls, live.policy ? "" : t("noLive"));
  permit(pauses);
  permit(resumes);
  pauses.hidden = learning.paused;
  resumes.hidden = !learning.paused;
  permit(weighs, Object.keys(learning.weights).length ? "" : t("noWeights"));
}

const hourly = () => feed.overview.votes.per_minute.reduce((sum, n) => sum + n, 0);

const quantiles = ({ p90_s: p90, p99_s: p99, votes: n }) => t("quantiles", { p90: duration(p90), p99: duration(p99), n: number(n) });

function liveSince(version) {
  const { version: names, changed_ms: changed, first_live_ms: first } = feed.policies, at = names.indexOf(version ?? "");
  return at < 0 ? "" : t("sinceTime", { time: since(changed[at] || first[at]) });
}

function learningLines({ paused, reason, changed_ms: changed, weights }, trainer) {
  const known = Object.entries(weights).map(([name, weight]) => `${name} ${number(weight)}`);
  return [...(paused ? [t("sinceTime", { time: since(changed) }), reason] : [trainerLine(trainer)]),
          known.length ? t("weightsAre", { weights: known.join(", ") }) : ""];
}

function trainerLine({ phase, waiting_for: waiting, step, steps, cycle, updated_ms: updated }) {
  if (!updated) return t("noTrainer");
  const doing = waiting ? t("waitsFor", { what: waiting }) : t(`phase.${phase}`);
  return t("trainerIs", { doing: steps ? `${doing} ${number(step)}/${number(steps)}` : doing, cycle: number(cycle) });
}

// ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function showVotes() {
  const { votes: { per_minute: counts, minute_ms: last }, click_to_live: delay } = feed.overview, end = last / MINUTE_MS;
  votes.show(counts.map((_, i) => end - counts.length + 1 + i), counts, t("lastHour", { n: number(hourly()) }));
  delays.show(delay.counts.map((_, i) => i), delay.counts, `${duration(delay.p50_s)}, ${quantiles(delay)}`);
}

// ── the watch ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function watchTable() {
  const titles = ["monitor", "monitorState", "monitorEvidence", "monitorSays", "runbook"];
  const head = make("thead", "", make("tr", "", ...titles.map((name) => scoped("col", t(name)))));
  return make("section", "watch", make("h2", "", t("watch")), make("p", "quiet", t("watchNote")),
              make("div", "wide", make("table", "", head, monitors)));
}

// Of each monitor its last value; at 1 it raises its alarm.
function showWatch() {
  const rows = feed.overview.watch.map(({ monitor, evidence, alarm, says, runbook }) => {
    const state = alarm ? "alarmRaised" : evidence === null ? "cannotTell" : "silent";
    return make("tr", alarm ? "alarming" : "", scoped("row", t(`monitor.${monitor}`)),
      ...[t(state), evidence > 1000 ? "> 1000" : number(evidence), says || t("nothingYet"), runbook].map((text) => make("td", "", text)));
  });
  monitors.replaceChildren(...rows);
}

function scoped(scope, text) {
  const cell = make("th", "", text);
  cell.scope = scope;
  return cell;
}

// Every ten minutes by the clock.
function tens({ scales: { x } }) {
  const first = Math.ceil(x.min / 10) * 10;
  return Array.from({ length: Math.floor((x.max - first) / 10) + 1 }, (_, i) => first + 10 * i);
}

// The ends of the bins, as many as there is room for.
function binEdges({ width }) {
  const edges = feed.overview.click_to_live.up_to_s.length, each = Math.ceil(edges / Math.max(1, Math.floor((width - 80) / 64)));
  return Array.from({ length: edges }, (_, i) => i + .5).filter((_, i) => i % each === 0);
}

const edgeName = (place) => duration(feed.overview.click_to_live.up_to_s[place - .5]);

// ── what happened ─────────────────────────────────────────────────────────────────────────────────────────────────────

// The newest, or those before a time.
async function load(before) {
  const mine = ++asked;
  try {
    const found = await (await request(`v1/console/history?limit=${PAGE}${before ? `&before_ms=${before}` : ""}`)).json();
    if (mine !== asked) return;
    const oldest = found.events.at(-1)?.at_ms ?? 0, gap = oldest > (events[0]?.at_ms ?? 0);
    const older = gap ? [] : events.filter(({ at_ms: at }) => at < oldest);
    if (before) events = [...events, ...found.events];
    else events = [...found.events, ...older];
    if (before || !older.length) ({ more } = found);
    problem = "";
  } catch (error) {
    problem = error.message;
  }
  if (root) showEvents();
}

function showEvents() {
  const items = events.map((event) => make("li", event.state, make("time", "", when(event.at_ms)), make("div", "", said(event),
    ...(event.reason && !passed(event) ? [make("p", "why", event.reason)] : []), figuresOf(event.figures))));
  const earlier = button("earlier", () => load(events.at(-1)?.at_ms));
  const kept = list.contains(document.activeElement);
  list.replaceChildren(make("h2", "", t("events")), make("ol", "", ...items),
                       ...(items.length ? [] : [make("p", "none", problem || t("nothingHappened"))]), ...(more ? [earlier] : []));
  if (kept && more) earlier.focus({ preventScroll: true });
}

const passed = ({ kind, state }) => kind === "gate" && state === "live";  // its figures are the reason

const SWAPS = { failed: "swapRefused", canary: "canaryStep", rejected: "canaryEnded" };

function said({ kind, state, version, previous }) {
  const words = { gate: state === "rejected" ? "gateRefused" : "gatePassed", swap: SWAPS[state] ?? "swapped" };
  return make("p", "", t(words[kind], { version, previous: previous || t("none") }));
}

const figuresOf = (figures) => make("p", "quiet", Object.entries(figures)
  .map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value, 3)}`).join(" · "));
