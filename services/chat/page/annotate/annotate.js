// The annotators' page: an item at a time, judged by an ordinary vote; how far all are; guidelines beside it.
import { $, announce, button, dress, make, setText } from "../dom.js";
import { askForKey } from "../key_dialog.js";
import * as keys from "../keys.js";
import * as markdown from "../markdown.js";
import { Ranking } from "./ranking.js";
import * as service from "../service.js";
import * as storage from "../storage.js";
import * as words from "../words.js";

const { t } = words;
const TAGS = document.body.dataset.reasons.split(" ").filter(Boolean);
const RANKS = [1, 2, 3, 4, 5, 6];
const LOOK_MS = 15_000, RENEW_MS = 10 * 60_000;
const KEYS = [
  [["1", "2", "3", "4", "5", "6"], "key.rank", ...RANKS.map((rank) => `rank${rank}`)],
  [["↑", "↓"], "key.place"],
  [["k", "j"], "key.card", "previous", "next"],
  [["+"], "key.up", "good"],
  [["-"], "key.down", "bad"],
  [["n"], "key.note", "note"],
  [["Ctrl+Enter"], "key.submit"],
  [["s"], "key.skip", "skip"],
  [["u"], "key.undo", "undo"],
  [["g"], "key.guidelines", "guidelines"],
  [["Escape"], "key.back"],
  [["?"], "key.sheet", "sheet"],
];

// `judged`: { up } or { order }; `last`: the vote or the skip that can be taken back, and what it said.
let item = null, judged = null, shownAt = 0, renewedAt = 0, busy = false, last = null, looking = 0;

// ── what people do ────────────────────────────────────────────────────────────────────────────────────────────────

async function submit() {
  const body = item && verdict();
  if (!body || busy) return;
  const told = { item: item.item_id, up: body.thumb?.up, tiers: body.ranking?.tiers, reasons: body.reasons, note: body.reason };
  await work(async () => {
    const reply = await service.request("v1/feedback", { body });
    last = { ...told, event: (await reply.json()).event_id };
    announce(t("annotate.sent"));
    await next();
  });
}

function verdict() {
  const said = judged.order ? judged.order.tiers && { ranking: { tiers: judged.order.tiers } }
    : judged.up !== undefined && { thumb: { answer: item.answers[0].answer, up: judged.up } };
  if (!said) return null;
  const about = { user: service.person(), source: "annotate", idempotency_key: keyOf(item.item_id) };
  return { ...about, ...said, reasons: reasons(), reason: $("note").value.trim(), response_ms: Date.now() - shownAt };
}

const reasons = () => [...document.querySelectorAll("#tags input:checked")].map(({ value }) => value);
const pathOfSkip = (itemId) => `v1/annotation/items/${encodeURIComponent(itemId)}/skip`;

async function skip() {
  if (!item || busy) return;
  await work(async () => {
    const body = { user: service.person(), reason: $("note").value.trim() };
    await service.request(pathOfSkip(item.item_id), { body });
    last = { item: item.item_id, reasons: reasons(), note: body.reason };
    announce(t("annotate.skipped"));
    await next();
  });
}

// The vote or the skip is taken back, and its item is this person's again.
async function undo() {
  if (!last || busy) return;
  const before = last;
  await work(async () => {
    const query = `user=${encodeURIComponent(service.person())}`;
    const path = before.event ? `v1/feedback/${before.event}` : pathOfSkip(before.item);
    try {
      await service.request(`${path}?${query}`, { method: "DELETE" });
    } catch (error) {
      if ([404, 409].includes(error.status)) last = null;  // others have it now
      throw error;
    }
    if (before.event) storage.tab.write("annotated", "");
    last = null;
    announce(t("takenBack"));
    await next();
    if (item?.item_id === before.item) restore(before);
  });
}

function restore({ up, tiers, reasons, note }) {
  if (tiers) judged.order.restore(tiers);
  else call(up);
  for (const box of document.querySelectorAll("#tags input")) box.checked = reasons.includes(box.value);
  $("note").value = note;
}

// Good or bad; the same again takes it away.
function call(up) {
  if (!item || judged.order) return;
  judged.up = judged.up === up ? undefined : up;
  showVerdict();
}

// ── what is asked of the service ──────────────────────────────────────────────────────────────────────────────────

// One thing at a time. What did not get through is tried again as it is, under the same key, until it does.
async function work(act) {
  busy = true;
  showVerdict();
  for (;;) {
    try {
      setText($("problem"), "");
      await act();
      break;
    } catch (error) {
      setText($("problem"), error.final === false ? t("annotate.waits", { why: error.message }) : error.message);
      if (error.final !== false) break;
      await service.recovered(error, () => service.seen.log === "ok");
    }
  }
  busy = false;
  $("look").hidden = Boolean(item);
  showVerdict();
}

async function next() {
  clearTimeout(looking);
  try {
    item = await (await service.request("v1/annotation/next", { body: { user: service.person() } })).json();
  } catch (error) {
    if (error.status !== 404) throw error;
    item = null;
    looking = setTimeout(() => busy || work(next), LOOK_MS);
  }
  showItem();
  showProgress();
}

// The same item again has the same key, also after a reload, so that a vote that got through is not counted twice.
function keyOf(itemId) {
  const [kept, key] = storage.tab.read("annotated").split(" ");
  if (kept === itemId) return key;
  const made = storage.newId();
  storage.tab.write("annotated", `${itemId} ${made}`);
  return made;
}

// Who is at work keeps the item.
function renew() {
  if (!item || busy || Date.now() < renewedAt + RENEW_MS) return;
  renewedAt = Date.now();
  service.request("v1/annotation/next", { body: { user: service.person() } }).catch(() => { /* a late vote counts, too */ });
}

// ── what is shown ─────────────────────────────────────────────────────────────────────────────────────────────────

function showItem() {
  $("item").hidden = !item;
  $("nothing").hidden = Boolean(item);
  if (!item) return;
  shownAt = renewedAt = Date.now();
  $("asked").replaceChildren(...item.messages.map(message));
  $("judgement").reset();
  $("work").scrollTop = 0;
  const several = item.answers.length > 1;
  $("thumbs").hidden = several;
  judged = several ? { order: new Ranking($("answers"), item.answers, showVerdict) } : {};
  if (!several) $("answers").replaceChildren(single(item.answers[0]));
  showNotes(several);
  $("answers").firstChild.focus({ preventScroll: true });
  showWords();
}

// A critic's notes, each below its answer, as text. Who is to judge without them is sent none.
function showNotes(several) {
  for (const { answer, quote, fault } of item.notes) {
    const box = several ? judged.order.cards.find((card) => same(card.answer.answer, answer))?.box : $("answers").firstChild;
    const head = make("p", "quiet");
    head.dataset.t = "annotate.critic";
    setText(head, t("annotate.critic"));
    box?.append(make("div", "critic", head, make("blockquote", "", quote), make("p", "", fault)));
  }
}

const same = (one, other) => one.completion_id === other.completion_id && one.index === other.index;

function message({ role, content }) {
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
  const body = make("div", role === "assistant" ? "markdown" : "said");
  if (role === "assistant") markdown.show(body, text);
  else body.textContent = text;
  const who = words.has(`role.${role}`) ? t(`role.${role}`) : role;
  return make("div", `asked ${role}`, make("p", "quiet", who), body);
}

function single(answer) {
  const text = make("div", "markdown"), box = make("div", "card", text);
  markdown.show(text, answer.text || t("empty"));
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.dataset.tLabel = "answer";
  box.setAttribute("aria-label", t("answer"));
  return box;
}

// What depends on the language and on the kind of the item.
function showWords() {
  if (!item) return;
  setText($("task"), t(judged.order ? "annotate.rank" : "annotate.judge"));
  judged.order?.update();
  showVerdict();
}

function showVerdict() {
  $("submit").disabled = busy || !item || !judged || !(judged.order ? judged.order.isWhole : judged.up !== undefined);
  $("skip").disabled = busy || !item;
  $("undo").hidden = !last;
  $("undo").disabled = busy;
  [...$("thumbs").children].forEach((node, index) => node.setAttribute("aria-pressed", judged?.up === !index));
}

async function showProgress() {
  const query = `user=${encodeURIComponent(service.person())}`;
  const found = await service.request(`v1/annotation/progress?${query}`).then((reply) => reply.json(), () => null);
  if (!found) return;  // it is asked again with the next item
  $("finished").max = Math.max(found.items, 1);
  $("finished").value = found.finished;
  const { alpha, interval } = found.rankings.alpha === null ? found.thumbs : found.rankings;
  const parts = [t("annotate.howFar", found), t("annotate.yours", found)];
  if (alpha !== null) parts.push(t("annotate.agreement", { alpha: alpha.toFixed(2) }) + (interval ? " " + within(interval) : ""));
  setText($("how-far"), parts.join(" · "));
}

const within = ([low, high]) => t("annotate.within", { low: low.toFixed(2), high: high.toFixed(2) });

async function showGuidelines() {
  const { text, markdown: formatted } = await (await service.request("v1/annotation/guidelines")).json();
  $("guidelines").hidden = !text;
  $("how").className = formatted ? "markdown" : "plain";
  if (formatted) markdown.show($("how"), text);
  else $("how").textContent = text;
}

function showState() {
  const { reachable, log } = service.seen, well = reachable && log === "ok";
  setText($("state"), reachable ? (well ? "" : log) : t("unreachable"));
  $("state").className = well ? "ready" : "away";
}

// ── where it begins ───────────────────────────────────────────────────────────────────────────────────────────────

function wire() {
  const tag = (name) => {
    const box = make("input"), said = make("span");
    box.type = "checkbox";
    box.value = name;
    said.dataset.tag = name;
    return make("label", "tag", box, said);
  };
  $("tags").append(...TAGS.map(tag));
  $("tags").parentNode.hidden = !TAGS.length;
  $("thumbs").append(
    button("good", () => call(true), { image: "up", text: true, className: "vote" }),
    button("bad", () => call(false), { image: "down", text: true, className: "vote" }),
  );
  $("judgement").onsubmit = (event) => {
    event.preventDefault();
    submit();
  };
  $("skip").onclick = skip;
  $("undo").onclick = undo;
  $("look").onclick = () => busy || work(next);
  $("show-keys").onclick = keys.openSheet;
  keys.listen({
    skip, undo, good: () => call(true), bad: () => call(false), sheet: keys.openSheet,
    note: () => $("note").focus(), guidelines: () => $("guidelines").focus(),
    leave: () => $("answers").firstChild?.focus(),
    previous: () => judged?.order?.step(-1), next: () => judged?.order?.step(1),
    ...Object.fromEntries(RANKS.map((rank) => [`rank${rank}`, () => judged?.order?.give(rank)])),
  }, KEYS);
  addEventListener("keydown", (event) => {
    renew();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) return submit();
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key], card = judged?.order?.current();
    if (!by || event.target !== card?.box || event.defaultPrevented) return;
    event.preventDefault();
    judged.order.move(by);
  });
  addEventListener("pointerdown", renew);
}

function speak() {
  for (const node of document.querySelectorAll("[data-tag]")) setText(node, words.tagName(node.dataset.tag));
  document.title = `${t("annotate.title")} – rlhf-online`;
  showWords();
}

dress(document);
await words.load(words.preferred());
wire();
speak();
service.onKeyNeeded(askForKey);
service.watch(showState);
service.poll();
words.offer($("language"), () => {
  speak();
  if (item) $("asked").replaceChildren(...item.messages.map(message));
  showProgress();
});
await work(async () => {
  await showGuidelines();
  await next();
});
