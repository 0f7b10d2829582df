// What has been said, as far as the page knows: server events and the playback clock in, turns to show out.
//
// Pure: no DOM, no audio, no socket, no clock of its own. Times are milliseconds of one clock, the caller's; positions
// are samples at 24 kHz of a reply's own output.

import { Reply, UserTurn } from "./turns.js";

/** The dialogue. `receive` takes server events; every method that changes a turn returns the turns it changed. */
export class Conversation {
  turns = [];
  #byId = new Map();
  #replies = new Map(); // index of a response on this connection -> Reply
  #typedMs; // when the text that waits for a reply was sent
  #heardAtMs;

  /** @param {(inputMs: number) => number | undefined} heardAtMs  when the page heard that moment of its own input */
  constructor(heardAtMs) {
    this.#heardAtMs = heardAtMs;
  }

  /** listening, hearing, thinking or speaking. */
  get activity() {
    const last = this.turns.at(-1);
    if (last?.kind === "user" && last.state === "speaking") return "hearing";
    if (this.turns.some((turn) => turn.kind === "reply" && turn.played > 0 && !turn.over)) return "speaking";
    const waits = (turn) => (turn.kind === "user" ? turn.state === "recognising" : !turn.over);
    return this.turns.some(waits) ? "thinking" : "listening";
  }

  /** The reply of response `index` on this connection. */
  reply(index) {
    return this.#replies.get(index);
  }

  /** The turn of an item of the user's, or of a response. */
  turn(id) {
    return this.#byId.get(id);
  }

  /** Whether a reply is being made or still being played. */
  get answering() {
    return this.turns.some((turn) => turn.kind === "reply" && !turn.over);
  }

  /** Whether the server is making a reply. */
  get replying() {
    return this.turns.some((turn) => turn.kind === "reply" && turn.state !== "done");
  }

  /** Time to the first sound of every reply of which it is known, in ms. */
  get onsets() {
    return this.turns.map((turn) => turn.timing?.onsetMs).filter((ms) => ms !== undefined);
  }

  /** The highest response index announced on this connection. */
  get newestIndex() {
    return Math.max(0, ...this.#replies.keys());
  }

  /** Takes turns that were kept as data, of an earlier visit; gives them as turns. */
  restore(kept) {
    const turns = kept.map((turn) => (turn.role === "user" ? UserTurn : Reply).from(turn));
    this.turns.push(...turns);
    for (const turn of turns) this.#byId.set(turn.id, turn);
    return turns;
  }

  /** Takes a server event that came now; events that change nothing to be seen return []. */
  receive(event, nowMs) {
    switch (event.type) {
      case "input_audio_buffer.speech_started":
        return [this.#user(event.item_id)];
      case "input_audio_buffer.speech_stopped":
      case "input_audio_buffer.committed":
        return this.#change(this.#byId.get(event.item_id), (turn) => {
          if (turn.state === "speaking") turn.state = "recognising";
        });
      case "input_audio_buffer.cleared":
        return this.turns
          .filter((turn) => turn.kind === "user" && turn.state === "speaking")
          .flatMap((turn) => this.#fail(turn));
      case "conversation.item.added":
        return this.#itemAdded(event.item);
      case "relay.partial":
        return this.#change(this.#byId.get(event.item_id), (turn) => {
          turn.stable = event.stable;
          turn.unstable = event.unstable;
        });
      case "conversation.item.input_audio_transcription.completed":
        return this.#change(this.#byId.get(event.item_id), (turn) => {
          turn.stable = event.transcript.trim();
          turn.unstable = "";
          turn.state = "done";
        });
      case "conversation.item.input_audio_transcription.failed":
        return this.#fail(this.#byId.get(event.item_id));
      case "response.created":
        return [this.#begin(event.response)];
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        return this.#change(this.#byId.get(event.response_id), (reply) => {
          reply.transcript += event.delta;
          reply.state = "speaking";
          if (reply.slowText) reply.marks.slowMs ??= nowMs;
        });
      case "relay.words":
        return this.#change(this.#byId.get(event.response_id), (reply) => {
          for (const { word, start_sample: start, end_sample: end } of event.words)
            reply.words.push({ text: word, start, end });
        });
      case "relay.metrics":
        return this.#change(this.#byId.get(event.response_id), (reply) => {
          reply.metrics = event.metrics;
          const { speech_end_ms: endMs } = event.metrics;
          if (typeof endMs === "number") reply.marks.askedMs = this.#heardAtMs(endMs);
        });
      case "relay.draft":
        return this.#change(this.#byId.get(event.response_id), (reply) => {
          const told = { ...reply.draft, ...event.draft };
          const { prefix = null, probability = null, committed = null, reason = null } = told;
          if (reason === "unasked" || (prefix === null && committed === null)) return;
          reply.draft = { prefix, probability, committed, reason };
          if (prefix !== null) reply.marks.draftMs ??= nowMs;
        });
      case "response.done":
        return this.#done(event.response);
      default:
        return [];
    }
  }

  /** Notes when a text was sent: the next reply answers it. */
  typed(nowMs) {
    this.#typedMs = nowMs;
  }

  /** Takes [samples] int16 of a reply's audio, beginning at `first`, that arrived now. */
  audioReceived(index, first, pcm, nowMs) {
    return this.#change(this.#replies.get(index), (reply) => {
      reply.peaks.add(first, pcm);
      if (!reply.silent) return;
      reply.silent = false;
      reply.marks.receivedMs = nowMs;
    });
  }

  /** Notes that a reply's sound ran out before its end. */
  starved(index) {
    return this.#change(this.#replies.get(index), (reply) => {
      reply.starved += 1;
    });
  }

  /** Notes when a reply was heard first. */
  audible(index, nowMs) {
    return this.#change(this.#replies.get(index), (reply) => {
      reply.marks.audibleMs = nowMs;
    });
  }

  /** Follows the playback clock; `over` says that this was the last of it. */
  played(index, samples, over = false) {
    return this.#change(this.#replies.get(index), (reply) => {
      if (reply.cut) return; // the clock trails behind what was counted when it stopped
      reply.played = samples;
      reply.over ||= over;
    });
  }

  /** Playback was stopped after `samples`. */
  cut(index, samples) {
    return this.#change(this.#replies.get(index), (reply) => {
      if (reply.over && !reply.cut) return; // it had been heard to its end
      reply.played = samples;
      reply.cut = true;
      reply.over = true;
    });
  }

  /** The connection ended: what was open never will be finished. Indices start again with the next one. */
  disconnected() {
    const open = this.turns.filter((turn) =>
      turn.kind === "user" ? ["speaking", "recognising"].includes(turn.state) : !turn.over,
    );
    for (const turn of open) {
      if (turn.kind === "user") turn.state = "failed";
      else Object.assign(turn, { state: "done", cut: true, over: true });
    }
    this.#replies.clear();
    return open;
  }

  /** Whether the last thing said is the user's, and nothing of an answer to it was heard. */
  get owed() {
    const said = this.turns.filter((turn) => turn.kind === "user" || turn.heardText !== "");
    return said.at(-1)?.kind === "user" && said.at(-1).stable !== "";
  }

  /** What a new connection must be told to go on with this dialogue: `{role, id, text}` in order. */
  history() {
    const said = (turn) =>
      turn.kind === "user"
        ? { role: "user", id: turn.id, text: turn.stable }
        : { role: "assistant", text: turn.heardText };
    return this.turns.map(said).filter(({ text }) => text !== "");
  }

  #user(id) {
    const turn = new UserTurn(id);
    this.turns.push(turn);
    this.#byId.set(id, turn);
    return turn;
  }

  #itemAdded(item) {
    if (item.role !== "user" || this.#byId.has(item.id)) return [];
    const turn = this.#user(item.id);
    const text = item.content.find(({ type }) => type === "input_text")?.text;
    turn.state = text === undefined ? "recognising" : "done";
    turn.stable = text ?? "";
    return [turn];
  }

  #begin(response) {
    const reply = new Reply(response.id, response.relay?.index, this.#typedMs);
    reply.spoken = response.output_modalities?.includes("audio") ?? false;
    this.#typedMs = undefined;
    this.turns.push(reply);
    this.#byId.set(reply.id, reply);
    this.#replies.set(reply.index, reply);
    return reply;
  }

  #done(response) {
    return this.#change(this.#byId.get(response.id), (reply) => {
      reply.state = "done";
      if (reply.silent) reply.over = true;
      if (response.status === "cancelled" && reply.silent) reply.cut = true;
      if (response.status === "failed") reply.problem = response.status_details?.error?.message ?? "The reply failed.";
      if (response.status === "incomplete")
        reply.problem = `The reply ended early: ${response.status_details?.reason ?? "no reason given"}.`;
    });
  }

  #fail(turn) {
    return this.#change(turn, (failed) => {
      failed.state = "failed";
    });
  }

  #change(turn, change) {
    if (!turn) return [];
    change(turn);
    return [turn];
  }
}
