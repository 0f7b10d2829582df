// What is seen: the turns, the figures of all of them, the controls, notices. It reads the conversation and never
// changes it.

import { ReplyView, UserView, element, setText } from "./turn-view.js";

const LEAST_SCALE_MS = 1000; // a bar as wide as the page is at least one second

const byId = (id) => document.getElementById(id);

/** The whole page. */
export class View {
  #views = new Map();
  #timed = new Set(); // replies with a bar: they are drawn on one common scale
  #changed = new Set(); // views whose sound must be drawn again
  #notices = new Map();

  constructor() {
    const all = () => {
      for (const view of this.#views.values()) this.#changed.add(view);
    };
    window.addEventListener("resize", all);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  }

  /** Shows a turn as it stands now. */
  show(turn) {
    byId("welcome").hidden = true;
    byId("summary").hidden = false;
    this.#keepEnd(() => {
      let view = this.#views.get(turn);
      if (!view) {
        view = turn.kind === "user" ? new UserView() : new ReplyView();
        this.#views.set(turn, view);
        byId("turns").append(view.node);
      }
      view.show(turn);
      this.#changed.add(view);
    });
  }

  /** Draws what changed since the last call. */
  draw() {
    for (const view of this.#changed) view.draw();
    this.#changed.clear();
  }

  /** Shows where the time of a reply went; `onsets` are those of all replies, in ms. */
  showTiming(turn, onsets) {
    this.#timed.add(turn);
    const scaleMs = Math.max(LEAST_SCALE_MS, ...onsets);
    this.#keepEnd(() => {
      for (const known of this.#timed) this.#views.get(known).showTiming(known, scaleMs);
    });
    const sorted = onsets.toSorted((a, b) => a - b);
    const median = Math.round(sorted[Math.floor(sorted.length / 2)]);
    const worst = Math.round(sorted.at(-1));
    const one = `First sound after ${median} ms`;
    setText(byId("figures"), onsets.length === 1 ? one : `First sound: median ${median} ms, worst ${worst} ms`);
  }

  /** Says in which state the page is: a word for the style sheet, and words for people. */
  setState(state, label) {
    document.body.dataset.state = state;
    setText(byId("status"), label);
  }

  /** Shows the controls as they must be: `microphone` is none, open or muted; `manual` if turns are ended by hand. */
  setControls({ connected, microphone, manual, answering }) {
    document.body.dataset.microphone = microphone;
    byId("end").hidden = !connected;
    byId("stop").hidden = !connected || !answering;
    const labels = { none: "Use microphone", open: manual ? "Send" : "Mute", muted: manual ? "Talk" : "Unmute" };
    setText(byId("talk-label"), connected ? labels[microphone] : "Start talking");
    byId("hint-auto").hidden = manual;
    byId("hint-manual").hidden = !manual;
  }

  /** A message that stays until it is dismissed or `clear(key)`; `action` is an optional `{label, run}`. */
  notice(key, text, action = null) {
    this.clear(key);
    const node = element("p", "notice");
    node.dataset.key = key;
    node.append(element("span", "", text));
    if (action) node.append(this.#button(action.label, () => (this.clear(key), action.run())));
    const close = this.#button("×", () => this.clear(key));
    close.setAttribute("aria-label", "Dismiss");
    node.append(close);
    this.#notices.set(key, node);
    byId("notices").append(node);
  }

  /** Whether such a message is shown. */
  notices(key) {
    return this.#notices.has(key);
  }

  clear(key) {
    this.#notices.get(key)?.remove();
    this.#notices.delete(key);
  }

  /** Tells screen readers something that is seen anyway. */
  announce(text) {
    byId("announcer").textContent = text;
  }

  /** Makes a change; who was at the conversation's end stays there. */
  #keepEnd(change) {
    const scroller = byId("scroller");
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    change();
    if (atEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  #button(label, run) {
    const button = element("button", "", label);
    button.type = "button";
    button.onclick = run;
    return button;
  }
}
