// Shows the conversation: the messages and answers that are chosen of it, each made once and updated after that.
import { AnswerView } from "./answer.js";
import { path, variants } from "./conversations.js";
import { $, announce, button, make, setText } from "./dom.js";
import { t, translate } from "./words.js";

const views = new Map();  // by node
const spoken = new Map();  // blocks read out, by node
let shown = null, actions = {};

export function setActions(given) {
  actions = given;
}

export function show(conversation) {
  const thread = $("thread");
  if (shown?.id !== conversation.id) {
    views.clear();
    thread.replaceChildren();
  }
  shown = conversation;
  const nodes = path(conversation);
  if (!nodes.length) thread.replaceChildren(welcome());
  else {
    thread.querySelector(".welcome")?.remove();
    nodes.forEach((node, i) => place(thread, i, viewOf(node)));
    while (thread.children.length > nodes.length) thread.lastElementChild.remove();
  }
}

// One node changed; the end stays in sight unless the reader has scrolled up.
export function update(conversation, node) {
  if (conversation.id === shown?.id) following(() => views.get(node.id)?.update(node));
}

export function updateAll() {
  following(() => {
    for (const [id, view] of views) view.update(shown.nodes[id] ?? view.node);
  });
}

function following(change) {
  const thread = $("thread"), atEnd = thread.scrollHeight - thread.scrollTop - thread.clientHeight < 80;
  change();
  if (atEnd) thread.scrollTop = thread.scrollHeight;
}

export const scrollToEnd = () => { $("thread").scrollTop = $("thread").scrollHeight; };
export const viewOfId = (id) => views.get(id);
export const turns = () => [...$("thread").querySelectorAll(".turn")];

// The node whose view holds the focus, else the last answer.
export function current() {
  const nodes = path(shown), focused = document.activeElement?.closest(".turn")?.dataset.node;
  return nodes.find(({ id }) => id === focused) ?? nodes.findLast(({ role }) => role === "assistant");
}

// Screen readers are told an answer paragraph by paragraph, each once, as it is whole.
export function speak(node, isWhole) {
  if (node.answers.length > 1) {
    if (isWhole) announce(t("which"));
    return;
  }
  const blocks = node.answers[0].text.split(/\n{2,}/), ready = isWhole ? blocks.length : blocks.length - 1;
  for (let i = spoken.get(node.id) ?? 0; i < ready; i++) announce(blocks[i]);
  spoken.set(node.id, ready);
  if (isWhole) announce(node.answers[0].problem || t("complete"));
}

function place(thread, i, view) {
  if (thread.children[i] !== view.box) thread.insertBefore(view.box, thread.children[i] ?? null);
}

function viewOf(node) {
  let view = views.get(node.id);
  if (!view) {
    view = node.role === "user" ? new MessageView(node) : new AnswerView(node, shown.id, actions);
    view.box.dataset.node = node.id;
    view.branches = new Branches(node);
    (view.head ?? view.tools).append(view.branches.box);
    views.set(node.id, view);
    translate(view.box);
  }
  view.update(node);
  view.branches.update(node);
  return view;
}

function welcome() {
  return make("div", "welcome", make("h2", "", t("welcome")), make("p", "", t("welcomeMore")));
}

// What the person said; edited, it becomes a variant beside this one.
class MessageView {
  constructor(node) {
    this.node = node;
    this.box = make("article", "turn message");
    this.box.tabIndex = -1;
    this.text = make("div", "said");
    this.head = make("div", "tools");
    this.editButton = button("edit", () => this.edit(), { image: "edit", className: "icon" });
    this.head.append(this.editButton);
    this.title = make("h2", "unseen");
    this.box.append(this.title, this.text, this.head);
  }

  update(node) {
    this.node = node;
    this.box.setAttribute("aria-label", t("you"));
    setText(this.title, t("you"));
    setText(this.text, node.text);
  }

  edit() {
    const form = make("form", "editing"), field = make("textarea");
    field.value = this.node.text;
    field.setAttribute("aria-label", t("edit"));
    const close = () => {
      form.replaceWith(this.text);
      this.head.hidden = false;
      this.box.focus();
    };
    const send = make("button", "primary", t("sendEdited"));
    form.append(field, make("div", "row", send, button("cancel", close)));
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = field.value.trim();
      close();
      if (text) actions.resend(this.node, text);
    };
    form.onkeydown = (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
      if (event.key !== "Escape") return;
      event.stopPropagation();
      close();
    };
    this.text.replaceWith(form);
    this.head.hidden = true;
    field.focus();
  }
}

// ‹ 2 of 3 ›: the variants of a message or an answer.
class Branches {
  constructor(node) {
    this.count = make("span");
    const step = (by) => () => actions.branch(node, by);
    this.box = make("span", "branches", button("previous", step(-1), { image: "left", className: "icon" }), this.count,
                    button("next", step(1), { image: "right", className: "icon" }));
  }

  update(node) {
    const all = variants(shown, node.parent), at = all.findIndex(({ id }) => id === node.id);
    this.box.hidden = all.length < 2;
    setText(this.count, t("branch", { number: at + 1, count: all.length }));
    this.box.firstChild.disabled = at === 0;
    this.box.lastChild.disabled = at === all.length - 1;
  }
}
