// One answer or a blind pair of them, with everything that can be done about it.
//
// The node is made once and then updated: what a person selects, focuses or types into stays while the answer grows.
import { became } from "./became.js";
import { isOpen } from "./conversations.js";
import { button, copy, make, setText } from "./dom.js";
import * as markdown from "./markdown.js";
import * as votes from "./votes.js";
import { t, tagName, translate } from "./words.js";

const CHOICES = [["left", "1"], ["right", "2"], ["same", "3"], ["bothBad", "4"]];
const TAGS = document.body.dataset.reasons.split(" ").filter(Boolean);
const VALUE = { left: "left", right: "right", same: "same", bothBad: "bad" };

export class AnswerView {
  // `actions`: again(node), pair(node), chose(node, index), reveal(node); `conversation` is its id.
  constructor(node, conversation, actions) {
    this.node = node;
    this.conversation = conversation;
    this.actions = actions;
    this.isPair = node.answers.length === 2;
    this.parts = node.answers.map((_, index) => new Part(index, this.isPair));
    this.box = make("article", this.isPair ? "turn answer pair" : "turn answer");
    this.box.tabIndex = -1;
    this.title = make("h2", "unseen");  // by which screen readers go from turn to turn
    this.box.append(this.title, make("div", "parts", ...this.parts.map((part) => part.box)));
    this.tools = make("div", "tools");
    this.note = make("span", "note");
    this.note.setAttribute("role", "status");
    this.panel = make("div", "panel");
    this.becameButton = button("became", () => this.became(), { className: "text" });
    if (this.isPair) this.addChoices();
    else this.addThumbs();
    this.tools.append(this.note, this.becameButton);
    this.box.append(this.tools, this.panel);
    this.update(node);
  }

  get answer() {
    return this.node.answers[this.node.goesOn];
  }

  get subject() {
    const kind = this.isPair ? "pair" : "thumb";
    return { kind, conversation: this.conversation, answers: this.node.answers.map(({ completion }) => completion) };
  }

  get correction() {
    return { ...this.subject, kind: "correction" };
  }

  // From the first token on, and not of what is known not to be stored.
  get canVote() {
    return this.node.answers.every(({ completion, text, unlogged }) => completion && text && !unlogged);
  }

  addThumbs() {
    this.up = button("good", () => this.vote(true), { image: "up", className: "icon vote" });
    this.down = button("bad", () => this.vote(false), { image: "down", className: "icon vote" });
    this.whyButton = button("why", () => this.why(), { className: "text" });
    this.betterButton = button("better", () => this.better(), { image: "edit", text: true, className: "text" });
    const copied = button("copyAnswer", (pressed) => copy(this.answer.text, pressed), { image: "copy", className: "icon" });
    this.againButton = button("again", () => this.actions.again(this.node), { image: "again", className: "icon" });
    this.pairButton = button("againPair", () => this.actions.pair(this.node), { image: "columns", className: "icon" });
    this.copyButton = copied;
    this.tools.append(this.up, this.down, copied, this.againButton, this.pairButton, this.betterButton, this.whyButton);
    this.corrected = make("div", "corrected");
    this.box.append(this.corrected);
  }

  addChoices() {
    const which = make("span", "which", t("which"));
    which.dataset.t = "which";
    this.choices = CHOICES.map(([name]) => button(name, () => this.choose(VALUE[name]), { className: "vote" }));
    this.tools.append(which, ...this.choices);
    this.tools.setAttribute("role", "group");
    this.tools.dataset.tLabel = "which";
  }

  // Pressing what is chosen takes it back.
  vote(up) {
    if (!this.canVote) return;
    const { wanted } = votes.load(this.subject);
    // Why an answer is good is not why it is bad.
    this.panel.replaceChildren();
    const value = wanted?.up === up ? null : { up, reason: "", reasons: [] };
    votes.set(this.subject, value, this.answer.shownAt);
  }

  // Both bad is said of each, too: the pair alone would only tell that they are alike.
  choose(choice) {
    if (!this.isPair || !this.canVote) return;
    this.panel.replaceChildren();
    const before = votes.load(this.subject).wanted?.choice, value = before === choice ? null : { choice };
    votes.set(this.subject, value, Math.max(...this.node.answers.map(({ shownAt }) => shownAt)));
    if (before === "bad" || value?.choice === "bad") {
      for (const { completion, shownAt } of this.node.answers) {
        const thumb = { ...this.subject, kind: "thumb", answers: [completion] };
        votes.set(thumb, value?.choice === "bad" ? { up: false, reason: "", reasons: [] } : null, shownAt);
      }
    }
    this.actions.chose(this.node, value?.choice === "right" ? 1 : 0);
  }

  // Tags that the service's configuration names, and words of one's own.
  why() {
    const { wanted } = votes.load(this.subject);
    if (this.isPair || !wanted) return;
    const tags = TAGS.map((tag) => {
      const box = make("input");
      box.type = "checkbox";
      box.value = tag;
      box.checked = wanted.reasons.includes(tag);
      return make("label", "tag", box, tagName(tag));
    });
    const field = make("input", "reason");
    field.value = wanted.reason;
    field.maxLength = 2000;
    this.open("reasonLabel", field, "reasonPlaceholder", () => {
      const now = votes.load(this.subject).wanted;
      const reasons = tags.map(({ firstChild }) => firstChild).filter(({ checked }) => checked).map(({ value }) => value);
      if (now) votes.set(this.subject, { ...now, reason: field.value.trim(), reasons }, this.answer.shownAt);
    }, tags);
  }

  // Shown, or put away.
  became() {
    const { given } = votes.load(this.subject);
    if (!given) return;
    const isShown = this.panel.querySelector(".became");
    this.panel.replaceChildren(...(isShown ? [] : [became(given.event)]));
  }

  better() {
    if (this.isPair || !this.canVote || isOpen(this.answer)) return;
    const field = make("textarea", "better");
    field.value = votes.load(this.correction).wanted?.text ?? this.answer.text;
    const isNew = () => field.value.trim() && field.value !== this.answer.text;
    this.open("betterLabel", field, "", () => {
      if (isNew()) votes.set(this.correction, { text: field.value }, this.answer.shownAt);
    });
  }

  // A field with what to do about it; Escape closes it, Enter (with Ctrl where there are several lines) saves.
  open(label, field, placeholder, save, before = []) {
    const form = make("form");
    field.dataset.tLabel = label;
    if (placeholder) field.dataset.tPlaceholder = placeholder;
    const close = () => {
      this.panel.replaceChildren();
      this.box.focus({ preventScroll: true });
    };
    const submit = button("save", () => {}, { className: "primary" });
    submit.type = "submit";
    submit.onclick = null;
    form.append(...before, field, make("div", "row", submit, button("cancel", close)));
    form.onsubmit = (event) => {
      event.preventDefault();
      save();
      close();
    };
    form.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close();
    };
    this.panel.replaceChildren(form);
    translate(form);
    field.focus();
  }

  update(node) {
    this.node = node;
    const writes = node.answers.some(isOpen), slot = votes.load(this.subject);
    this.box.setAttribute("aria-busy", writes);
    this.box.setAttribute("aria-label", t("answer"));
    setText(this.title, t("answer"));
    node.answers.forEach((answer, index) => this.parts[index].update(answer));
    this.tools.hidden = !node.answers.every(({ text }) => text) && writes;
    if (this.isPair) this.updateChoices(slot);
    else this.updateThumbs(slot, writes);
    this.becameButton.hidden = !slot.given;
    this.note.className = slot.problem ? "note problem" : "note";
    setText(this.note, slotNote(slot));
  }

  updateChoices({ wanted, given }) {
    if (given && !this.answer.versions && !this.asked) this.actions.reveal(this.node);
    this.asked ||= Boolean(given);
    CHOICES.forEach(([name], i) => {
      this.choices[i].setAttribute("aria-pressed", wanted?.choice === VALUE[name]);
      this.choices[i].disabled = !this.canVote;
    });
    const better = { left: 0, right: 1 }[wanted?.choice];
    this.parts.forEach((part, index) => part.box.classList.toggle("chosen", index === better));
  }

  updateThumbs({ wanted }, writes) {
    for (const [pressed, up] of [[this.up, true], [this.down, false]]) {
      pressed.setAttribute("aria-pressed", wanted?.up === up);
      pressed.hidden = !this.canVote;
    }
    this.whyButton.hidden = !wanted;
    this.againButton.hidden = this.pairButton.hidden = this.copyButton.hidden = writes;
    this.copyButton.hidden ||= !this.answer.text;
    this.betterButton.hidden = writes || !this.canVote;
    const retry = !this.answer.text && this.answer.state === "failed";
    this.againButton.classList.toggle("retry", retry);
    this.updateCorrection();
  }

  updateCorrection() {
    const slot = votes.load(this.correction), shown = JSON.stringify([slot, t("name")]);
    if (this.correctionShown === shown) return;
    this.correctionShown = shown;
    const note = make("span", slot.problem ? "note problem" : "note", slotNote(slot));
    note.setAttribute("role", "status");
    this.corrected.replaceChildren();
    if (!slot.wanted) {
      if (slot.problem) this.corrected.append(note);
      return;
    }
    const text = make("div", "markdown");
    markdown.show(text, slot.wanted.text);
    const back = button("takeBack", () => votes.set(this.correction, null, this.answer.shownAt), { className: "text" });
    const change = button("change", () => this.better(), { className: "text" });
    this.corrected.append(make("div", "label", t("betterSaved")), text, make("div", "tools", change, back, note));
  }
}

// The text of one answer, and below it who wrote it or what is wrong.
class Part {
  constructor(index, isPair) {
    this.side = isPair ? ["left", "right"][index] : "";
    this.box = make("section", "part");
    this.text = make("div", "markdown");
    this.about = make("div", "about");
    this.thoughts = make("details", "thoughts", make("summary"), make("div"));
    this.thoughts.hidden = true;
    if (this.side) {
      this.heading = make("h3");
      this.box.append(this.heading);
    }
    this.box.append(this.thoughts, this.text, this.about);
  }

  update(answer) {
    if (this.side) setText(this.heading, t(this.side));
    if (this.shown !== answer.text) markdown.show(this.text, answer.text);
    this.shown = answer.text;
    this.thoughts.hidden = !answer.reasoning;
    setText(this.thoughts.firstChild, t("thoughts"));
    setText(this.thoughts.lastChild, answer.reasoning);
    this.box.className = `part ${answer.state}${this.box.classList.contains("chosen") ? " chosen" : ""}`;
    setText(this.about, about(answer));
  }
}

function about(answer) {
  const { state, problem, versions, unlogged, text, reasoning } = answer;
  if (state === "waiting") return problem ? t("waiting", { why: problem }) : `${t("writing")}…`;
  if (state === "writing") return reasoning && !text ? `${t("thinking")}…` : `${t("writing")}…`;
  const parts = [versions];
  if (state === "stopped") parts.push(t("stopped"));
  if (state === "failed") parts.push(problem || t("broke"));
  if (unlogged) parts.push(t("notLogged"));
  return parts.filter(Boolean).join(" · ");
}

function slotNote({ given, pending, takenBack, problem, refused }) {
  if (problem) return t(refused ? "refused" : "queued", { why: problem });
  if (pending) return t("saving");
  if (given) return t("counted");
  return takenBack ? t("takenBack") : "";
}
