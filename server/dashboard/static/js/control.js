// The emergency stop: asks before it acts, and says plainly that trading is stopped.

import { get, post } from "./api.js";
import { byId, setText } from "./dom.js";
import { moment } from "./format.js";

export class Control {
  constructor() {
    this.banner = byId("stopped");
    this.words = byId("stopped-words");
    this.stopButton = byId("stop");
    this.dialog = byId("confirm");
    this.stopButton.addEventListener("click", () => this.ask("stop"));
    byId("resume").addEventListener("click", () => this.ask("resume"));
    byId("confirm-no").addEventListener("click", () => this.dialog.close());
    byId("confirm-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.act();
    });
  }

  /** Ask the node how it stands. */
  async refresh() {
    this.show(await get("/api/control"));
  }

  /** Items from the stream, as {item}: somebody stopped or resumed. */
  take(group) {
    const told = group.findLast(({ item }) => item.type === "emergency_stop");
    if (told) this.show(told.item.data);
  }

  show({ emergency_stop: stopped, since, reason }) {
    this.banner.hidden = !stopped;
    this.stopButton.hidden = stopped;
    const when = typeof since === "number" ? ` since ${moment(since, true)}` : "";
    const why = reason ? ` Reason: ${reason}` : "";
    setText(this.words, `Trading actions are stopped on every node${when}.${why}`);
  }

  ask(action) {
    const text = TEXTS[action];
    this.action = action;
    setText(byId("confirm-title"), text.title);
    setText(byId("confirm-words"), text.words);
    setText(byId("confirm-yes"), text.yes);
    byId("confirm-yes").classList.toggle("danger", action === "stop");
    byId("confirm-reason").hidden = action !== "stop";
    byId("confirm-problem").hidden = true;
    this.dialog.showModal();
  }

  async act() {
    const reason = byId("confirm-form").elements.reason.value.trim();
    const body = this.action === "stop" && reason ? { reason } : {};
    try {
      this.show(await post(TEXTS[this.action].path, body));
      byId("confirm-form").reset();
      this.dialog.close();
    } catch (error) {
      setText(byId("confirm-problem"), error.message);
      byId("confirm-problem").hidden = false;
    }
  }
}

const TEXTS = {
  stop: {
    title: "Stop all trading actions?",
    words: "Every node stops acting on decisions until somebody resumes. Reading and ingest go on.",
    yes: "Stop trading",
    path: "/api/control/emergency-stop",
  },
  resume: {
    title: "Resume trading actions?",
    words: "Every node may act on decisions again.",
    yes: "Resume trading",
    path: "/api/control/resume",
  },
};
