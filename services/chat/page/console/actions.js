// What an operator does: each is asked for once more, in a sentence that names what will happen. A refusal is said in the
// same place.
import { $, button, make, setText, toast } from "../dom.js";
import { request } from "../service.js";
import { t } from "../words.js";
import { feed, mayOperate } from "./feed.js";
import { number } from "./figures.js";

const REFUSED = ["rejected", "failed"];

// Why nothing can be done now, or "".
export function hindrance() {
  if (feed.connection !== "connected") return t("notConnected");
  return mayOperate() ? "" : t("needsOperator", { roles: feed.may.join(", ") });
}

// A button for an action. `permit` says whether it is on: while there is a hindrance, or `why`, it is off and says so.
export function actionButton(name, act, why = "") {
  const node = button(name, act);
  permit(node, why);
  return node;
}

export function permit(node, why = "") {
  const reason = hindrance() || why;
  node.disabled = Boolean(reason);
  node.title = reason;
}

// `fields`: nodes with names, whose values `act` is given. Ends when it is done or left.
async function confirm({ title, text, yes, fields = [], act }) {
  const dialog = $("confirm"), form = $("confirm-form");
  if (dialog.open || hindrance()) return;
  setText($("confirm-title"), title);
  setText($("confirm-text"), text);
  setText($("confirm-yes"), yes);
  setText($("confirm-problem"), "");
  $("confirm-fields").replaceChildren(...fields);
  $("confirm-no").onclick = () => dialog.close();
  form.onsubmit = async (event) => {
    event.preventDefault();
    if ($("confirm-yes").disabled) return;
    $("confirm-yes").disabled = true;
    try {
      const said = await act(Object.fromEntries(new FormData(form)));
      dialog.close();
      toast(said);
    } catch (error) {
      setText($("confirm-problem"), error.message);
    } finally {
      $("confirm-yes").disabled = false;
    }
  };
  dialog.showModal();
}

const send = async (path, body, method = "POST") => (await request(path, { body, method })).json();

function reasonField() {
  const field = make("input");
  Object.assign(field, { name: "reason", maxLength: 1024, autocomplete: "off" });
  return make("label", "field", make("span", "", t("reason")), field);
}

export const kindOf = (version) => version.split("-")[0];

// Why the version cannot be promoted, or "".
export function notPromotable(version, state) {
  if (feed.overview?.live[kindOf(version)] === version) return t("isLive");
  return REFUSED.includes(state) ? t("wasRefused", { state: t(`state.${state}`) }) : "";
}

export function promote(version) {
  const kind = kindOf(version), live = feed.overview.live[kind] ?? t("none");
  confirm({
    title: t("promoteTitle", { version }), yes: t("promote"),
    text: t(kind === "policy" ? "promotePolicy" : "promoteReward", { version, live }),
    act: async () => t("promoted", { version: (await send(`v1/versions/${version}/promote`)).version }),
  });
}

export function rollBack(kind = "policy") {
  const live = feed.overview?.live[kind];
  if (!live) return;
  confirm({
    title: t("rollBackTitle", { version: live }), yes: t("rollBack"), fields: [reasonField()],
    text: t(kind === "policy" ? "rollBackPolicy" : "rollBackReward", { version: live }),
    act: async ({ reason }) => {
      const { version } = await send("v1/versions/rollback", { kind, reason });
      return t("rolledBack", { version });
    },
  });
}

export function pauseOrResume() {
  const { paused } = feed.overview?.learning ?? {};
  confirm(paused ? {
    title: t("resumeTitle"), text: t("resumeText"), yes: t("resume"),
    act: async () => {
      await send("v1/learning/resume");
      return t("resumed");
    },
  } : {
    title: t("pauseTitle"), text: t("pauseText"), yes: t("pause"), fields: [reasonField()],
    act: async ({ reason }) => {
      await send("v1/learning/pause", { reason });
      return t("pausedNow");
    },
  });
}

export function changeWeights() {
  const weights = Object.entries(feed.overview?.learning.weights ?? {});
  if (!weights.length) return;
  const fields = weights.map(([name, weight]) => {
    const field = make("input");
    Object.assign(field, { type: "number", name, min: 0, step: "any", required: true, value: weight });
    return make("label", "field", make("span", "", name), field);
  });
  confirm({
    title: t("weightsTitle"), text: t("weightsText"), yes: t("weightsSet"), fields,
    act: async (values) => {
      const wanted = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]));
      const { weights: now } = await send("v1/learning/weights", { weights: wanted }, "PUT");
      return t("weightsNow", { weights: Object.entries(now).map(([name, value]) => `${name} ${number(value)}`).join(", ") });
    },
  });
}
