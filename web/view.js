// What is seen: turns, words, bars of time, notices. It reads the conversation and never changes it.

const EXPLAINED = {
  endpointing: "waiting to be sure that you had finished",
  ears: "recognising your last words",
  draft: "drafting the first words",
  verify: "checking the draft",
  llm_first: "first words of the answer",
  voice_first: "first sound of the voice",
  transport: "network, both ways",
  playout: "playback buffer and sound output",
};
const LEAST_SCALE_MS = 1000; // a bar as wide as the page is at least one second

const byId = (id) => document.getElementById(id);

function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The node of a word in that state. Words never heard become <del>: a screen reader can tell them apart, too. */
function marked(node, state) {
  const className = `word ${state}`;
  if (node.className === className) return node;
  if (state !== "unheard") {
    node.className = className;
    return node;
  }
  const gone = element("del", className, node.textContent);
  node.replaceWith(gone);
  return gone;
}

/** One turn of the user: words that stay, then words that may still change. */
class UserView {
  constructor() {
    this.node = element("li", "turn user");
    this.node.append(element("h2", "who", "You"));
    const text = this.node.appendChild(element("p", "said"));
    this.stable = text.appendChild(element("span", "stable"));
    this.unstable = text.appendChild(element("span", "unstable"));
  }

  show(turn) {
    this.node.dataset.state = turn.state;
    const nothing = { speaking: "…", recognising: "…", failed: "(not recognised)", done: "(no words recognised)" }[
      turn.state
    ];
    setText(this.stable, turn.stable);
    setText(this.unstable, turn.text ? (turn.stable && turn.unstable ? " " : "") + turn.unstable : nothing);
  }
}

/** One reply: its words as they are played, and where the time before its first sound went. */
class ReplyView {
  #words = [];

  constructor() {
    this.node = element("li", "turn reply");
    this.node.append(element("h2", "who", "Relay"));
    this.text = this.node.appendChild(element("p", "said"));
    this.tail = this.text.appendChild(element("span", "word ahead"));
    this.problem = this.node.appendChild(element("p", "problem"));
    this.timing = this.node.appendChild(element("div", "timing"));
    this.timing.hidden = true;
  }

  show(turn) {
    this.node.hidden = !turn.visible;
    this.node.dataset.state = turn.state;
    for (const word of turn.words.slice(this.#words.length)) {
      const node = element("span", "word", word.text);
      this.tail.before(node, " ");
      this.#words.push(node);
    }
    this.#words = this.#words.map((node, i) => marked(node, turn.stateOf(turn.words[i])));
    setText(this.tail, turn.tail || (turn.state === "thinking" ? "…" : ""));
    const read = turn.over || (turn.silent && turn.state === "done");
    this.tail.hidden = this.tail.textContent === "";
    if (!this.tail.hidden) this.tail = marked(this.tail, turn.cut ? "unheard" : read ? "heard" : "ahead");
    setText(this.problem, turn.problem ?? "");
  }

  /** Draws the bar; `scaleMs` is the time that the whole width stands for. */
  showTiming({ stages, onsetMs }, path, scaleMs) {
    const bar = element("div", "bar");
    bar.setAttribute("role", "img");
    const list = stages.map(({ name, ms }) => `${name} ${Math.round(ms)} ms`).join(", ");
    bar.setAttribute("aria-label", `${Math.round(onsetMs)} ms to the first sound: ${list}`);
    const legend = element("ul", "legend");
    for (const { name, ms } of stages) {
      const part = bar.appendChild(element("span", `part ${name}`));
      part.style.width = `${(100 * ms) / scaleMs}%`;
      const entry = legend.appendChild(element("li", name));
      entry.title = part.title = EXPLAINED[name];
      entry.append(name.replace("_", " "), " ", element("b", "", String(Math.round(ms))));
    }
    const total = element("p", "total");
    total.append(element("b", "", `${Math.round(onsetMs)} ms`), ` to the first sound${path ? ` · ${path}` : ""}`);
    this.timing.replaceChildren(total, bar, legend);
    this.timing.hidden = false;
  }
}

/** The whole page. */
export class View {
  #views = new Map();
  #timings = new Map(); // turn -> its timing, drawn on one common scale
  #scaleMs = LEAST_SCALE_MS;
  #notices = new Map();

  /** Shows a turn as it stands now. */
  show(turn) {
    byId("welcome").hidden = true;
    const scroller = byId("scroller");
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    let view = this.#views.get(turn);
    if (!view) {
      view = turn.kind === "user" ? new UserView() : new ReplyView();
      this.#views.set(turn, view);
      byId("turns").append(view.node);
    }
    view.show(turn);
    if (atEnd) scroller.scrollTop = scroller.scrollHeight;
  }

  /** Shows where the time of a reply went. */
  showTiming(turn, timing) {
    this.#timings.set(turn, timing);
    this.#scaleMs = Math.max(this.#scaleMs, timing.onsetMs);
    for (const [known, its] of this.#timings)
      this.#views.get(known).showTiming(its, known.metrics?.path, this.#scaleMs);
    this.show(turn);
  }

  /** Says in which state the page is: a word for the style sheet, and words for people. */
  setState(state, label) {
    document.body.dataset.state = state;
    setText(byId("status"), label);
  }

  /** Shows the controls as they must be: `microphone` is none, open or muted. */
  setControls({ connected, microphone }) {
    document.body.dataset.microphone = microphone;
    byId("end").hidden = !connected;
    const label = !connected ? "Start talking" : { none: "Use microphone", open: "Mute", muted: "Unmute" }[microphone];
    setText(byId("talk-label"), label);
  }

  /** A message that stays until it is dismissed or `clear(key)`; `action` is an optional `{label, run}`. */
  notice(key, text, action = null) {
    this.clear(key);
    const node = element("p", "notice");
    node.append(element("span", "", text));
    if (action) node.append(this.#button(action.label, () => (this.clear(key), action.run())));
    const close = this.#button("×", () => this.clear(key));
    close.setAttribute("aria-label", "Dismiss");
    node.append(close);
    this.#notices.set(key, node);
    byId("notices").append(node);
  }

  clear(key) {
    this.#notices.get(key)?.remove();
    this.#notices.delete(key);
  }

  /** Tells screen readers something that is seen anyway. */
  announce(text) {
    byId("announcer").textContent = text;
  }

  #button(label, run) {
    const button = element("button", "", label);
    button.type = "button";
    button.onclick = run;
    return button;
  }
}

const COLUMN_PX = 4;
const FLOOR_DB = -60;

/** The last seconds of both voices: the user's above the line, the reply's below. */
export class Strip {
  #canvas = byId("strip");
  #columns = [];
  #user = 0;
  #reply = 0;
  #ticks = 0;

  /** Takes root-mean-square levels in [0, 1] whenever they are known; the loudest until `draw` counts. */
  user(level) {
    this.#user = Math.max(this.#user, level);
  }

  reply(level) {
    this.#reply = Math.max(this.#reply, level);
  }

  /** Adds a column and draws. With reduced motion nothing scrolls: two bars show the levels of this moment. */
  draw() {
    const column = [height(this.#user), height(this.#reply)];
    this.#ticks += 1;
    if (this.#ticks % 15 === 0) byId("levels").setAttribute("aria-valuenow", String(Math.round(100 * column[0])));
    this.#user = this.#reply = 0;
    const scale = window.devicePixelRatio;
    const { clientWidth, clientHeight } = this.#canvas;
    const width = Math.round(clientWidth * scale);
    if (this.#canvas.width !== width) {
      this.#canvas.width = width;
      this.#canvas.height = Math.round(clientHeight * scale);
    }
    const paint = this.#canvas.getContext("2d");
    const style = getComputedStyle(this.#canvas);
    const colours = [style.getPropertyValue("--you"), style.getPropertyValue("--relay")];
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, clientWidth, clientHeight);
    const middle = clientHeight / 2;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      column.forEach((size, lane) => {
        paint.fillStyle = colours[lane];
        paint.fillRect(0, lane === 0 ? middle - 6 : middle + 2, Math.max(2, clientWidth * size), 4);
      });
      return;
    }
    this.#columns.push(column);
    this.#columns = this.#columns.slice(-Math.ceil(clientWidth / COLUMN_PX));
    const left = clientWidth - this.#columns.length * COLUMN_PX;
    for (const lane of [0, 1]) {
      paint.fillStyle = colours[lane];
      this.#columns.forEach((levels, i) => {
        const size = Math.max(1, levels[lane] * (middle - 2));
        paint.fillRect(left + i * COLUMN_PX, lane === 0 ? middle - 1 - size : middle + 1, COLUMN_PX - 1, size);
      });
    }
  }
}

/** A level as a fraction of the lane: 0 at -60 dBFS, 1 at 0 dBFS. */
function height(level) {
  return level > 0 ? Math.max(0, 1 - (20 * Math.log10(level)) / FLOOR_DB) : 0;
}
