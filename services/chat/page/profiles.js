// Whose adapter answers: the audiences that the service has, and the one that was chosen here.
import { request } from "./service.js";
import * as storage from "./storage.js";
import { t } from "./words.js";

let known = null;  // until the service has told them, who chose one is taken at their word

// Fills the list, which is shown where there are any. Throws Refused; nobody is asked for a key.
export async function offer(select) {
  known = (await (await request("v1/models", { ask: false })).json()).profiles;
  const everybody = new Option(t("everybody"), "");
  everybody.dataset.t = "everybody";
  select.replaceChildren(everybody, ...known.map((name) => new Option(name, name)));
  select.value = name();
  select.hidden = !known.length;
  select.onchange = () => storage.write("profile", select.value);
}

// What a request for answers says of it; nothing where one is answered as everybody is.
export function chosen() {
  return name() ? { profile: name() } : {};
}

// One that there is not any more was chosen for nothing.
function name() {
  const wanted = storage.read("profile") ?? "";
  return !known || known.includes(wanted) ? wanted : "";
}
