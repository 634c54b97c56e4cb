// Asks for an API key, in the dialog that each page has.
import { $, setText } from "./dom.js";

// Resolves to the key, or to "" if the person gives none.
export function askForKey(why) {
  const dialog = $("key-dialog");
  setText($("key-why"), why);
  $("key").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue);
    dialog.returnValue = "";
    $("key-cancel").onclick = () => dialog.close("");
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close($("key").value.trim());
    };
  });
}
