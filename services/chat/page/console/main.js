// The console: which view is open, the keys, the connection. Views show what `feed` holds; they ask for nothing that they
// do not show.
import { $, dress, make, setText } from "../dom.js";
import { askForKey } from "../key_dialog.js";
import * as keys from "../keys.js";
import * as service from "../service.js";
import * as storage from "../storage.js";
import * as words from "../words.js";
import { hindrance } from "./actions.js";
import { again, feed, follow } from "./feed.js";
import { since } from "./figures.js";
import * as compare from "./compare.js";
import * as conversations from "./conversations.js";
import * as live from "./live.js";
import * as versions from "./versions.js";

const { t } = words;
const VIEWS = { live, versions, compare, conversations };
const TITLES = { live: "viewLive", versions: "viewVersions", compare: "viewCompare", conversations: "conversations" };
const KEYS = [
  [["1", "2", "3", "4"], "key.views", "live", "versions", "compare", "conversations"],
  [["k", "j"], "key.rows", "previous", "next"],
  [["Enter"], "key.open"],
  [["[", "]"], "key.pages", "newer", "older"],
  [["m"], "key.promote", "promote"],
  [["r"], "key.report", "report"],
  [["b"], "key.rollBack", "rollBack"],
  [["x"], "key.pause", "pause"],
  [["w"], "key.weights", "weights"],
  [["e"], "key.export", "export"],
  [["/"], "key.prompt", "write"],
  [["Escape"], "key.stop"],
  [["?"], "key.sheet", "sheet"],
];
let view = live, name = "live", opened = false;

function go(wanted) {
  const started = performance.now();
  if (opened) view.close();
  name = wanted in VIEWS ? wanted : "live";
  view = VIEWS[name];
  document.title = `${t(TITLES[name])} · rlhf-online`;
  setText($("title"), t(TITLES[name]));
  for (const link of $("views").children) {
    if (link.hash !== `#${name}`) link.removeAttribute("aria-current");
    else {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" });  // on a phone there is no room for all
    }
  }
  opened = feed.overview !== null;
  if (opened) view.open($("view"));
  else $("view").replaceChildren(make("p", "none", feed.why || t("connecting")));
  requestAnimationFrame(() => setTimeout(() => performance.measure(`view:${name}`, { start: started })));
}

function changed(names) {
  showConnection();
  if (opened && feed.overview) view.update(names);
  else go(name);
}

function showConnection() {
  const { connection, why, seenAt } = feed, connected = connection === "connected";
  setText($("state"), t(`connection.${connection}`));
  $("state").className = connected ? "ready" : "away";
  $("banner").hidden = connected || !seenAt;
  setText($("banner"), t("staleSince", { time: since(seenAt), why }).trim());
  const refused = connection === "refused", reason = refused ? why : connected ? hindrance() : "";
  setText($("limits-why"), reason);
  $("limits").hidden = !reason;
}

async function otherKey() {
  const key = await askForKey($("limits-why").textContent);
  if (!key) return;
  storage.tab.write("key", key);
  again();
}

function wire() {
  addEventListener("hashchange", () => go(location.hash.slice(1)));
  $("show-keys").onclick = keys.openSheet;
  $("other-key").onclick = otherKey;
  const to = (place) => () => {
    location.hash = place;
    $("title").focus();
  };
  const act = (wanted) => () => (view.actions[wanted] ?? live.actions[wanted])?.();
  const names = ["previous", "next", "newer", "older", "promote", "report", "rollBack", "pause", "weights", "export", "write", "leave"];
  keys.listen({
    live: to("live"), versions: to("versions"), compare: to("compare"), conversations: to("conversations"),
    sheet: keys.openSheet,
    ...Object.fromEntries(names.map((wanted) => [wanted, act(wanted)])),
  }, KEYS);
  service.onKeyNeeded(askForKey);
}

dress(document);
await words.load(words.preferred());
wire();
go(location.hash.slice(1));
showConnection();
words.offer($("language"), () => {
  showConnection();
  go(name);
});
follow(changed);
