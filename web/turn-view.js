// How one turn looks: its words, the sound of a reply, its two paths, and where its time went.

import { drawWave } from "./waveform.js";

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

export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** What became of a draft that was not spoken. */
const NOT_SPOKEN = {
  late: "too late",
  doubtful: "doubtful, not spoken",
  empty: "had no words",
  failed: "failed",
  interrupted: "stopped before it was known",
};

/**
 * The node of a word in that state, from the draft or not. Words never heard become <del>: a screen reader can tell
 * them apart, too.
 */
function marked(node, state, drafted = false) {
  const className = `word ${state}${drafted ? " drafted" : ""}`;
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
export class UserView {
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

  draw() {}
}

/** The two paths of a reply: what was drafted at once, how sure the verifier was, and what joined or took its place. */
class Lanes {
  constructor() {
    this.node = element("dl", "lanes");
    this.fast = this.#lane("fast");
    this.slow = this.#lane("slow");
    this.prefix = this.fast.appendChild(element("span", "words"));
    const verdict = this.fast.appendChild(element("span", "verdict"));
    this.meter = verdict.appendChild(element("span", "probability"));
    this.meter.setAttribute("aria-hidden", "true");
    this.fill = this.meter.appendChild(element("span"));
    this.verdict = verdict.appendChild(element("span"));
    this.rest = this.slow.appendChild(element("span", "words"));
    this.joint = this.slow.appendChild(element("span", "verdict"));
    this.verdict.title = this.joint.title = "Times count from the end of what you said.";
  }

  show({ draft, joined, slowText, state, firstWordsMs, metrics }) {
    const { prefix, probability, committed, reason } = draft;
    const at = (ms) => (ms === null ? "" : ` · at ${ms} ms`);
    this.node.dataset.outcome = committed === null ? "open" : joined ? "committed" : "fallback";
    if (committed === false && prefix !== null && this.prefix.tagName !== "DEL") {
      const dropped = element("del", "words");
      this.prefix.replaceWith(dropped);
      this.prefix = dropped;
    }
    setText(this.prefix, prefix ?? "(nothing)");
    this.meter.hidden = probability === null;
    this.fill.style.width = `${100 * (probability ?? 0)}%`;
    const sure = probability === null ? "" : `verifier ${probability.toFixed(2)} · `;
    const fallback = NOT_SPOKEN[reason] ?? "not spoken";
    const outcome = { open: "checking", committed: "spoken at once", fallback }[this.node.dataset.outcome];
    setText(this.verdict, sure + outcome + at(firstWordsMs.fast));
    const isAsked = metrics?.path !== "draft";
    setText(this.rest, slowText || (!isAsked ? "(not asked)" : state === "done" ? "(nothing to add)" : "…"));
    const part = joined ? "joins after the draft" : committed === false ? "answers alone" : "";
    setText(this.joint, isAsked && part ? part + at(firstWordsMs.slow) : "");
  }

  #lane(name) {
    this.node.append(element("dt", name, name));
    return this.node.appendChild(element("dd", name));
  }
}

/** One reply: its words as they are played, its sound, and where the time before its first sound went. */
export class ReplyView {
  #words = [];
  #turn = null;
  #lanes = null;
  #joint = null;

  constructor() {
    this.node = element("li", "turn reply");
    this.node.append(element("h2", "who", "Relay"));
    this.text = this.node.appendChild(element("p", "said"));
    this.tail = this.text.appendChild(element("span", "word ahead"));
    this.problem = this.node.appendChild(element("p", "problem"));
    this.wave = this.node.appendChild(element("canvas", "wave"));
    this.wave.setAttribute("role", "img");
    this.wave.hidden = true;
    this.timing = this.node.appendChild(element("div", "timing"));
    this.timing.hidden = true;
  }

  show(turn) {
    this.#turn = turn;
    this.node.hidden = !turn.visible;
    this.node.dataset.state = turn.state;
    for (const word of turn.words.slice(this.#words.length)) {
      const node = element("span", "word", word.text);
      this.tail.before(node, " ");
      this.#words.push(node);
    }
    const { drafted } = turn;
    this.#words = this.#words.map((node, i) => marked(node, turn.stateOf(turn.words[i]), i < drafted));
    this.#showJoint(drafted);
    setText(this.tail, turn.tail || (turn.state === "thinking" ? "…" : ""));
    const read = turn.over || (turn.silent && turn.state === "done");
    this.tail.hidden = this.tail.textContent === "";
    if (!this.tail.hidden) this.tail = marked(this.tail, turn.cut ? "unheard" : read ? "heard" : "ahead");
    setText(this.problem, turn.problem ?? "");
    this.wave.hidden = turn.silent;
    if (turn.draft) this.#showLanes(turn);
  }

  /** Draws the sound and how much of it was played. */
  draw() {
    if (!this.#turn || this.#turn.silent) return;
    const { played, peaks, cut, joinedAt } = this.#turn;
    const seconds = (samples) => (samples / 24000).toFixed(1);
    const drafted = joinedAt ? `, the first ${seconds(joinedAt)} s of them drafted` : "";
    const label = `${seconds(played)} of ${seconds(peaks.samples)} s played${drafted}`;
    this.wave.setAttribute("aria-label", `${label}${cut ? ", then interrupted" : ""}`);
    drawWave(this.wave, this.#turn);
  }

  /** Draws the bar; `scaleMs` is the time that the whole width stands for. */
  showTiming({ timing: { stages, onsetMs }, metrics: { path }, starved }, scaleMs) {
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
    const gaps = starved > 0 ? ` · paused ${starved} × for want of sound` : "";
    total.append(
      element("b", "", `${Math.round(onsetMs)} ms`),
      ` to the first sound${path ? ` · ${path}` : ""}${gaps}`,
    );
    this.timing.replaceChildren(total, bar, legend);
    this.timing.hidden = false;
  }

  /** A mark between the words of the fast path and those of the slow one. */
  #showJoint(drafted) {
    const next = this.#words[drafted];
    if (this.#joint || !drafted || !next) return;
    this.#joint = element("span", "joint");
    this.#joint.setAttribute("role", "img");
    this.#joint.setAttribute("aria-label", "up to here drafted, from here the slow path:");
    this.#joint.title = "Up to here drafted, from here the slow path";
    next.before(this.#joint, " ");
  }

  #showLanes(turn) {
    if (!this.#lanes) {
      this.#lanes = new Lanes();
      this.timing.before(this.#lanes.node);
    }
    this.#lanes.show(turn);
  }
}
