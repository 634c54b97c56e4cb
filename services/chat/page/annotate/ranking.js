// Answers that are put in order: by dragging, by their buttons, or by keys. Answers of one rank are tied.
//
// An answer's rank is 0 until it has one. As long as one has none the list stands as it was drawn; from then on it
// stands in the order that is said. Nothing is said by an order that nobody has made.
import { announce, button, make, setText } from "../dom.js";
import * as markdown from "../markdown.js";
import { t } from "../words.js";

const LETTERS = "ABCDEF", EDGE = 48, STEP = 12;

export class Ranking {
  // `changed()` is called with each change of the order.
  constructor(list, answers, changed) {
    this.list = list;
    this.changed = changed;
    this.cards = answers.map((answer, index) => new Card(this, answer, LETTERS[index], answers.length));
    list.replaceChildren(...this.cards.map(({ box }) => box));
    this.update();
  }

  get isWhole() {
    return this.cards.every(({ rank }) => rank);
  }

  // As they stand in the list.
  get shown() {
    return [...this.list.children].map((box) => this.cards.find((card) => card.box === box));
  }

  // Best first, the names of the answers; null as long as one has no rank.
  get tiers() {
    return this.isWhole ? this.groups().map((group) => group.map(({ answer }) => answer.answer)) : null;
  }

  // The order of an earlier time, by the names of the answers.
  restore(tiers) {
    const names = tiers.map((tier) => tier.map((name) => JSON.stringify(name)));
    for (const card of this.cards) card.rank = 1 + names.findIndex((tier) => tier.includes(JSON.stringify(card.answer.answer)));
    this.sort();
  }

  current() {
    return this.cards.find(({ box }) => box.contains(document.activeElement));
  }

  // Of the answer in focus, or else of the first one without a rank. The same rank again takes it away.
  give(rank, card = this.current() ?? this.shown.find((one) => !one.rank)) {
    if (!card || rank > this.cards.length) return;
    card.rank = card.rank === rank ? 0 : rank;
    if (this.isWhole) this.sort();
    else this.update();
    const next = this.shown.find((one) => !one.rank);
    (card.rank && next ? next : card).box.focus();
    card.tell();
  }

  // One place up or down: between two others, and level with one, in turn.
  move(by, card = this.current()) {
    if (!card) return;
    const groups = this.groups(), at = groups.findIndex((group) => group.includes(card));
    this.place(card, 2 * at + (groups[at].length > 1 ? 1 : 0) + by);
  }

  // `slot` counts the places that there are for the answer among the others: 0 before the first, 1 level with it, 2 behind it, …
  place(card, slot) {
    const groups = this.groups().map((group) => group.filter((one) => one !== card)).filter(({ length }) => length);
    const at = Math.min(Math.max(slot, 0), 2 * groups.length);
    if (at % 2) groups[(at - 1) / 2].push(card);
    else groups.splice(at / 2, 0, [card]);
    groups.forEach((group, index) => {
      for (const one of group) one.rank = index + 1;
    });
    this.sort();
    card.box.focus();
    card.tell();
  }

  step(by) {
    const shown = this.shown, at = shown.indexOf(this.current());
    shown.at(at < 0 ? 0 : Math.min(Math.max(at + by, 0), shown.length - 1)).box.focus();
  }

  groups() {
    if (!this.isWhole) return this.shown.map((card) => [card]);
    const ranks = [...new Set(this.cards.map(({ rank }) => rank))].sort((one, other) => one - other);
    return ranks.map((rank) => this.shown.filter((card) => card.rank === rank));
  }

  sort() {
    this.list.append(...this.groups().flat().map(({ box }) => box));
    this.update();
  }

  update() {
    for (const card of this.cards) card.update();
    this.changed();
  }

  // Where an answer that is dragged would go, and which other one shows it.
  slotAt(y, card) {
    const others = this.shown.filter((one) => one !== card);
    const groups = this.groups().map((group) => group.filter((one) => one !== card)).filter(({ length }) => length);
    for (const other of others) {
      const { top, bottom, height } = other.box.getBoundingClientRect();
      const at = 2 * groups.findIndex((group) => group.includes(other));
      if (y < top + height / 4) return { slot: at, other, mark: "before" };
      if (y < bottom - height / 4) return { slot: at + 1, other, mark: "level" };
    }
    return { slot: 2 * groups.length, other: others.at(-1), mark: "after" };
  }
}

class Card {
  constructor(ranking, answer, letter, count) {
    Object.assign(this, { ranking, answer, letter, rank: 0 });
    this.badge = make("span", "badge");
    const grip = make("span", "grip", "⠿");
    grip.setAttribute("aria-hidden", "true");
    this.ranks = Array.from({ length: count }, (_, index) => {
      const node = make("button", "rank", `${index + 1}`);
      node.type = "button";
      node.onclick = () => ranking.give(index + 1, this);
      return node;
    });
    this.buttons = make("div", "ranks", ...this.ranks);
    this.buttons.setAttribute("role", "group");
    const text = make("div", "markdown");
    markdown.show(text, answer.text || t("empty"));
    this.title = make("h3", "", this.badge);
    this.box = make("div", "card", make("div", "head", grip, this.title, this.buttons), text);
    if (answer.reasoning) text.before(thoughts(answer.reasoning));
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    grip.onpointerdown = (event) => this.drag(event, grip);
  }

  get said() {
    if (!this.rank) return t("annotate.unranked", { answer: this.letter });
    const rank = this.ranking.isWhole ? 1 + this.ranking.groups().findIndex((group) => group.includes(this)) : this.rank;
    const level = this.ranking.cards.filter((one) => one !== this && one.rank === this.rank).map(({ letter }) => letter);
    const values = { answer: this.letter, rank, others: level.join(", ") };
    return level.length ? t("annotate.level", values) : t("annotate.ranked", values);
  }

  tell() {
    announce(this.said);
  }

  update() {
    setText(this.badge, this.letter);
    this.box.classList.toggle("ranked", this.rank > 0);
    this.box.setAttribute("aria-label", this.said);
    this.buttons.setAttribute("aria-label", t("annotate.rankOf", { answer: this.letter }));
    this.ranks.forEach((node, index) => node.setAttribute("aria-pressed", this.rank === index + 1));
  }

  drag(event, grip) {
    if (event.button) return;
    event.preventDefault();
    grip.setPointerCapture(event.pointerId);
    this.box.classList.add("dragged");
    const from = event.clientY, scrolled = document.getElementById("work");
    const begun = scrolled.scrollTop;
    let target = null;
    const mark = (next) => {
      target?.other?.box.classList.remove(target.mark);
      next?.other?.box.classList.add(next.mark);
      target = next;
    };
    grip.onpointermove = ({ clientY }) => {
      const { top, bottom } = scrolled.getBoundingClientRect();
      if (clientY < top + EDGE) scrolled.scrollBy(0, -STEP);
      if (clientY > bottom - EDGE) scrolled.scrollBy(0, STEP);
      this.box.style.transform = `translateY(${clientY - from + scrolled.scrollTop - begun}px)`;
      mark(this.ranking.slotAt(clientY, this));
    };
    const end = (drop) => {
      grip.onpointermove = grip.onpointerup = grip.onpointercancel = null;
      this.box.classList.remove("dragged");
      this.box.style.transform = "";
      const found = target;
      mark(null);
      if (drop && found) this.ranking.place(this, found.slot);
    };
    grip.onpointerup = () => end(true);
    grip.onpointercancel = () => end(false);
  }
}

function thoughts(text) {
  return make("details", "thoughts", make("summary", "", t("thoughts")), make("div", "", text));
}
