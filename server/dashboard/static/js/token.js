// The API token, where the node wants one: kept by this tab alone, asked for when a call is refused.

import { byId } from "./dom.js";

const KEY = "context-api-token";
let asking = null;

/** The token that was given, or null. */
export function token() {
  return sessionStorage.getItem(KEY);
}

/** The headers that bring a token. */
export function bearer(given) {
  return given ? { Authorization: `Bearer ${given}` } : {};
}

/** After a refusal of `refused`: another token, given meanwhile or asked for now, once for all. */
export async function renew(refused) {
  if (token() !== refused) return;
  asking ??= ask(refused !== null).finally(() => (asking = null));
  await asking;
}

function ask(wrong) {
  const [dialog, form] = [byId("token"), byId("token-form")];
  byId("token-problem").hidden = !wrong;
  form.onsubmit = (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, form.elements.token.value.trim());
    form.reset();
    dialog.close();
  };
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", done, { once: true }));
}
