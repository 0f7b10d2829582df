// One turn of the dialogue, the user's or the server's, and where its time went.
//
// Pure: no DOM, no audio, no socket, no clock of its own. Times are milliseconds of one clock, the caller's; positions
// are samples at 24 kHz of a reply's own output.

import { Peaks } from "./waveform.js";

export const STAGES = ["endpointing", "ears", "draft", "verify", "llm_first", "voice_first", "transport", "playout"];

/**
 * Where the time went between the user's last word (or sent text) and the reply's first sound.
 *
 * The server measures its own stages. The page measures the whole, from its own clock, and what lies between: `playout`
 * is first audio received -> first sound out of the loudspeaker, `transport` is what neither of them accounts for.
 *
 * @param {Record<string, number>} serverMs  stages_ms of `relay.metrics`
 * @param {{askedMs?: number, receivedMs?: number, audibleMs?: number}} marks  as the page saw them
 * @returns {{stages: {name: string, ms: number}[], onsetMs: number}}
 */
export function timing(serverMs, { askedMs, receivedMs, audibleMs }) {
  const known = { ...serverMs };
  const server = Object.values(known).reduce((sum, ms) => sum + ms, 0);
  if (askedMs !== undefined && receivedMs !== undefined) known.transport = Math.max(0, receivedMs - askedMs - server);
  if (receivedMs !== undefined && audibleMs !== undefined) known.playout = Math.max(0, audibleMs - receivedMs);
  const stages = STAGES.filter((name) => known[name] !== undefined).map((name) => ({ name, ms: known[name] }));
  return { stages, onsetMs: stages.reduce((sum, { ms }) => sum + ms, 0) };
}

/** A turn of the user. `state`: speaking, recognising, done or failed. */
export class UserTurn {
  kind = "user";
  stable = "";
  unstable = "";
  state = "speaking";

  constructor(id) {
    this.id = id;
  }

  get text() {
    return [this.stable, this.unstable].filter(Boolean).join(" ");
  }

  /** The turn as data, for whoever keeps the conversation. */
  toJSON() {
    const { id, state, text } = this;
    return { role: "user", id, state, text };
  }

  /** A turn that was kept; what was still being heard then is lost. */
  static from({ id, state, text }) {
    const turn = new UserTurn(id);
    return Object.assign(turn, { stable: text, state: state === "done" ? "done" : "failed" });
  }
}

/** A turn of the server. `state`: thinking, speaking (audio or text has come) or done. */
export class Reply {
  kind = "reply";
  transcript = "";
  words = [];
  state = "thinking";
  played = 0;
  cut = false; // stopped before its end: what was not played will never be heard
  spoken = false; // the reply is speech; its text alone is not an answer
  silent = true; // no audio has come
  over = false; // nothing more of it will be played
  problem = null;
  metrics = null;
  marks = {};
  peaks = new Peaks();
  starved = 0; // how often the sound ran out before the reply's end
  draft = null; // what the fast path offered: {prefix, probability, committed, reason}, null where it is not known

  constructor(id, index, askedMs) {
    this.id = id;
    this.index = index;
    this.marks.askedMs = askedMs;
  }

  /** heard, now (being spoken), ahead (still to come) or unheard (never will be). The line is at half a word. */
  stateOf(word) {
    if (this.cut) return (word.start + word.end) / 2 <= this.played ? "heard" : "unheard";
    if (word.end <= this.played || (this.over && !this.silent)) return "heard";
    return word.start <= this.played && this.played > 0 ? "now" : "ahead";
  }

  /** The end of the transcript that has no place in the audio yet. */
  get tail() {
    return after(this.transcript, this.words.map(({ text }) => text).join(""));
  }

  /** Whether the reply begins with the words that were drafted. */
  get joined() {
    return this.draft?.committed === true;
  }

  /** The words of the slow path: all of the reply, or what follows the draft. */
  get slowText() {
    return this.joined ? after(this.transcript, this.draft.prefix) : this.transcript.trim();
  }

  /** How many of the words, from the first on, came from the draft. */
  get drafted() {
    let left = this.joined ? bare(this.draft.prefix).length : 0;
    let count = 0;
    for (; left > 0 && count < this.words.length; count += 1) left -= bare(this.words[count].text).length;
    return count;
  }

  /** Where the slow path's words join: the end of the draft in the reply's audio. 0 if nothing of it was spoken. */
  get joinedAt() {
    return this.words[this.drafted - 1]?.end ?? 0;
  }

  /** When the first words of each path came, in ms after the end of what is answered; null where that is not known. */
  get firstWordsMs() {
    const { askedMs, draftMs, slowMs } = this.marks;
    const since = (ms) => (askedMs === undefined || ms === undefined ? null : Math.round(ms - askedMs));
    return { fast: since(draftMs), slow: since(slowMs) };
  }

  /** What a waveform shows of it. */
  get position() {
    return { played: this.played, joined: this.joinedAt, cut: this.cut };
  }

  /** What the user has heard, or read if the reply is text. */
  get heardText() {
    if (this.words.length === 0) return this.cut && this.spoken ? "" : this.transcript;
    const heard = this.words.filter((word) => this.stateOf(word) === "heard").map(({ text }) => text);
    return (this.cut ? heard : [...heard, this.tail]).join(" ").trim();
  }

  /** Whether there is anything to show. */
  get visible() {
    return this.state !== "done" || this.transcript !== "" || this.words.length > 0 || this.problem !== null;
  }

  /** What is known about where the time before its first sound went; null until the server has told its part. */
  get timing() {
    const sounded = this.metrics?.stages_ms && this.metrics.onset_ms !== null;
    return sounded ? timing(this.metrics.stages_ms, this.marks) : null;
  }

  /** The reply as data, for whoever keeps the conversation. Samples are at 24 kHz, of the reply's own audio. */
  toJSON() {
    const { id, state, transcript, heardText, cut, problem, played, starved, draft, metrics } = this;
    const measured = this.timing;
    return {
      role: "assistant",
      id,
      state,
      text: transcript,
      heard_text: heardText,
      interrupted: cut,
      problem,
      played_samples: played,
      audio_samples: this.peaks.samples,
      starved,
      words: this.words.map((word) => ({
        word: word.text,
        start_sample: word.start,
        end_sample: word.end,
        heard: this.stateOf(word) === "heard",
      })),
      path: metrics?.path ?? null,
      onset_ms: measured?.onsetMs ?? null,
      stages_ms: measured ? Object.fromEntries(measured.stages.map(({ name, ms }) => [name, ms])) : null,
      draft,
      ...(draft && { first_words_ms: this.firstWordsMs }),
    };
  }

  /** A reply that was kept, without its sound; what had not been heard then never will be. */
  static from(kept) {
    const words = kept.words.map((word) => ({ text: word.word, start: word.start_sample, end: word.end_sample }));
    const { fast, slow } = kept.first_words_ms ?? {};
    return Object.assign(new Reply(kept.id), {
      words,
      transcript: kept.text,
      state: "done",
      spoken: words.length > 0,
      played: kept.played_samples,
      cut: kept.interrupted || kept.words.some(({ heard }) => !heard),
      over: true,
      problem: kept.problem,
      starved: kept.starved,
      draft: kept.draft,
      marks: kept.first_words_ms ? { askedMs: 0, draftMs: fast ?? undefined, slowMs: slow ?? undefined } : {},
      metrics: kept.stages_ms && { path: kept.path, stages_ms: kept.stages_ms },
    });
  }
}

const bare = (text) => text.replace(/\s/g, "");

/** What follows `beginning` in `text`; only characters that are no white space count. */
function after(text, beginning) {
  let at = 0;
  for (let left = bare(beginning).length; left > 0 && at < text.length; at += 1) if (/\S/.test(text[at])) left -= 1;
  return text.slice(at).trim();
}
