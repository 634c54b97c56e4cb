// How it stands: what serves, the votes and how soon they are lived by, learning, and what happened to versions.
import { button, make } from "../dom.js";
import { request } from "../service.js";
import { t } from "../words.js";
import { actionButton, changeWeights, pauseOrResume, rollBack } from "./actions.js";
import { feed } from "./feed.js";
import { clock, duration, number, since, when } from "./figures.js";
import { Bars } from "./plots.js";

const PAGE = 20, MINUTE_MS = 60_000;
let root = null, cards = null, list = null, votes = null, delays = null, events = [], more = false, asked = 0, problem = "";

export function open(node) {
  root = node;
  cards = make("div", "cards");
  list = make("section", "events");
  votes = new Bars({ title: t("votesPerMinute"), x: t("time"), y: t("votesUnit"), writeX: (x) => clock(x * MINUTE_MS),
                     splits: tens });
  delays = new Bars({ title: t("clickToLive"), x: t("delayUnit"), y: t("votesUnit"), splits: binEdges, writeX: edgeName });
  root.replaceChildren(cards, make("div", "plots", votes.figure, delays.figure), list);
  update(["overview", "policies", "connection"]);
}

export function close() {
  votes?.destroy();
  delays?.destroy();
  root = null;
}

export function update(names) {
  if (!feed.overview || !feed.policies) return;
  showCards();
  showVotes();
  if (names.includes("policies") || names.includes("rewards")) load();
  else showEvents();
}

export const actions = { pause: pauseOrResume, rollBack: () => rollBack(), weights: changeWeights };

const card = (title, ...parts) => make("section", "card", make("h2", "", title), ...parts);
const big = (text) => make("p", "big", text);
const line = (text) => make("p", "quiet", text);

function showCards() {
  const { overview } = feed, { live, learning, trainer, votes: flow, click_to_live: delay } = overview;
  const focused = document.activeElement?.closest?.(".cards button")?.dataset.t;
  cards.replaceChildren(
    card(t("liveVersion"), big(live.policy ?? t("none")), line(liveSince("policies", live.policy)),
         ...(overview.serving === (live.policy ?? "") ? [] : [line(t("stillServing", { version: overview.serving || t("none") }))]),
         line(t("engineIs", { state: t(`engine.${overview.engine}`) })),
         line(t("rewardIs", { version: live.reward ?? t("none") })),
         actionButton("rollBack", () => rollBack(), live.policy ? "" : t("noLive"))),
    ...(flow ? voteCards(flow, delay, overview.now_ms) : []),
    card(t("learning"), big(t(learning.paused ? "paused" : trainer.updated_ms ? "running" : "unknown")), ...learningLines(learning, trainer),
         make("div", "row", actionButton(learning.paused ? "resume" : "pause", pauseOrResume),
              actionButton("weights", changeWeights, Object.keys(learning.weights).length ? "" : t("noWeights")))),
  );
  if (focused) cards.querySelector(`button[data-t="${focused}"]`)?.focus();
}

function voteCards(flow, delay, now) {
  const last = flow.per_minute.at(-1) ?? 0, hour = flow.per_minute.reduce((sum, n) => sum + n, 0);
  return [
    card(t("votes"), big(t("lastMinute", { n: number(last) })), line(t("lastHour", { n: number(hour) })),
         line(t("inAll", { n: number(flow.total) }))),
    card(t("backlog"), big(number(flow.backlog)), line(flow.oldest_waiting_ms
      ? t("oldestWaits", { time: duration((now - flow.oldest_waiting_ms) / 1000) }) : t("nothingWaits"))),
    card(t("clickToLive"), big(duration(delay.p50_s)),
         line(t("quantiles", { p90: duration(delay.p90_s), p99: duration(delay.p99_s), n: number(delay.votes) }))),
  ];
}

function liveSince(series, version) {
  const at = feed[series].version.indexOf(version ?? "");
  if (at < 0) return "";
  return t("sinceTime", { time: since(feed[series].changed_ms[at] || feed[series].first_live_ms[at]) });
}

function learningLines({ paused, reason, changed_ms: changed, weights }, trainer) {
  const lines = paused ? [t("sinceTime", { time: since(changed) }), reason] : [trainerLine(trainer)];
  const known = Object.entries(weights).map(([name, weight]) => `${name} ${number(weight)}`);
  return [...lines, known.length ? t("weightsAre", { weights: known.join(", ") }) : ""].filter(Boolean).map(line);
}

function trainerLine({ phase, waiting_for: waiting, step, steps, cycle, updated_ms: updated }) {
  if (!updated) return t("noTrainer");
  const doing = waiting ? t("waitsFor", { what: waiting }) : t(`phase.${phase}`);
  return t("trainerIs", { doing: steps ? `${doing} ${number(step)}/${number(steps)}` : doing, cycle: number(cycle) });
}

// ── charts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function showVotes() {
  if (!feed.overview.votes) return;
  const { per_minute: counts, minute_ms: last } = feed.overview.votes, end = last / MINUTE_MS;
  const sum = counts.reduce((all, n) => all + n, 0), { p50_s: p50, p90_s: p90, p99_s: p99, counts: bins, votes: n } = feed.overview.click_to_live;
  votes.show(counts.map((_, i) => end - counts.length + 1 + i), counts, t("lastHour", { n: number(sum) }));
  delays.show(bins.map((_, i) => i), bins,
              `${duration(p50)}, ${t("quantiles", { p90: duration(p90), p99: duration(p99), n: number(n) })}`);
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

async function load(before) {
  const mine = ++asked;
  try {
    const found = await (await request(`v1/console/history?limit=${PAGE}${before ? `&before_ms=${before}` : ""}`)).json();
    if (mine !== asked) return;
    events = before ? [...events, ...found.events] : found.events;
    ({ more } = found);
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

function said({ kind, state, version, previous }) {
  const words = { gate: state === "rejected" ? "gateRefused" : "gatePassed", swap: state === "failed" ? "swapRefused" : "swapped" };
  return make("p", "", t(words[kind], { version, previous: previous || t("none") }));
}

const figuresOf = (figures) => make("p", "quiet", Object.entries(figures).map(([name, value]) => `${name.replaceAll("_", " ")} ${number(value, 3)}`).join(" · "));
