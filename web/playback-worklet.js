// The loudspeaker's side of the audio thread: 24 kHz int16 as it arrives -> the context's rate, without gaps, with an
// exact account of what was played.

import { Resampler } from "./resampler.js";

export const WIRE_HZ = 24000;
const REPORT_EVERY_S = 0.02;
const AUDIBLE = 0.003; // -50 dBFS: the first sample above it counts as the onset of a reply
const MAX_GAP_SAMPLES = 10 * WIRE_HZ;
const TARGET_MS = { first: 40, least: 20, most: 400 };
const samples = (ms) => (ms * WIRE_HZ) / 1000;

/** One reply's audio: what arrived, how much of it was played. */
class Reply {
  constructor(index, contextHz) {
    this.index = index;
    this.resampler = new Resampler(WIRE_HZ, contextHz);
    this.received = 0;
    this.ended = false;
    this.playing = false;
    this.audible = false;
    this.starved = false;
  }

  /** Takes int16 samples that begin at `first`. What is there already is skipped; a gap becomes silence. */
  add(first, pcm) {
    const gap = first - this.received;
    if (this.ended || gap > MAX_GAP_SAMPLES) return;
    if (gap > 0) this.resampler.push(new Float32Array(gap));
    const fresh = pcm.subarray(Math.min(pcm.length, Math.max(0, -gap)));
    this.resampler.push(Float32Array.from(fresh, (value) => value / 32768));
    this.received += Math.max(0, gap) + fresh.length;
  }
}

/**
 * Plays replies one after the other, from a jitter buffer that grows when it ran dry and shrinks when it did not.
 *
 * Replies are named by a number that only grows. Pure: `render` is given the time, and what there is to tell is kept
 * until `events` fetches it. All positions are samples at 24 kHz of the reply's own output.
 */
export class PlaybackCore {
  #contextHz;
  #replies = [];
  #last = 0; // replies up to this index are over: late audio of theirs is dropped
  #target = samples(TARGET_MS.first);
  #flushing = false;
  #held = false; // somebody speaks, and may or may not interrupt
  #silent = false; // the hold has been faded into
  #events = [];
  #sinceReport = 0;
  #power = 0;

  /** @param {number} contextHz rate of the audio that `render` writes */
  constructor(contextHz) {
    this.#contextHz = contextHz;
  }

  /** How much audio is kept in hand before a reply starts, in samples at 24 kHz. */
  get targetSamples() {
    return this.#target;
  }

  /** Takes [samples] int16 of reply `index`, beginning at position `first` of its output. */
  add(index, first, pcm) {
    this.#reply(index)?.add(first, pcm);
  }

  /** No more audio of reply `index` will come: it is played to its last sample. */
  end(index) {
    const reply = this.#reply(index);
    if (!reply) return;
    reply.ended = true;
    reply.resampler.finish();
  }

  /** Plays silence after a fade and keeps all audio (`held`), or plays on where it was. */
  hold(held) {
    this.#held = held;
  }

  /** Drops all audio that is here and all that may still come for replies up to `upTo`; fades within the next block. */
  flush(upTo = 0) {
    const newest = this.#replies.at(-1)?.index ?? 0;
    this.#last = Math.max(this.#last, newest, upTo);
    this.#flushing = this.#replies.length > 0;
    this.#held = false;
  }

  /** Fills `out` (Float32Array at the context's rate); `frame` is the context's frame number of its first sample. */
  render(out, frame) {
    out.fill(0);
    const reply = this.#replies[0];
    if (!reply) return;
    if (this.#held && (this.#silent || !reply.playing)) {
      this.#silent = true;
      return;
    }
    if (!this.#flushing && !reply.playing) {
      if (!reply.ended && reply.resampler.buffered < this.#target) return;
      reply.playing = true;
    }
    const written = reply.playing && !(this.#flushing && this.#silent) ? reply.resampler.read(out) : 0;
    if (this.#flushing || this.#held) fadeOut(out, written);
    else if (this.#silent) fadeIn(out, written);
    this.#silent = this.#held;
    this.#measure(reply, out, written, frame);
    if (this.#flushing) {
      this.#flushing = false;
      for (const dropped of this.#replies) this.#tell("flushed", dropped, frame + written);
      this.#replies = [];
    } else if (reply.resampler.done) {
      if (!reply.starved) this.#target = Math.max(samples(TARGET_MS.least), Math.round(this.#target * 0.9));
      this.#last = reply.index;
      this.#replies.shift();
      this.#tell("finished", reply, frame + written);
    } else {
      if (written < out.length) this.#starve(reply, frame + written);
      if (this.#sinceReport >= REPORT_EVERY_S * this.#contextHz) this.#tell("played", reply, frame + written);
    }
  }

  /** What happened since the last call: `{type, index, played, frame, rms, target}`, in order. */
  events() {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  #reply(index) {
    if (index <= this.#last) return undefined;
    let reply = this.#replies.find((known) => known.index === index);
    if (!reply) {
      reply = new Reply(index, this.#contextHz);
      this.#replies.push(reply);
    }
    return reply;
  }

  #starve(reply, frame) {
    reply.playing = false;
    reply.starved = true;
    this.#target = Math.min(samples(TARGET_MS.most), Math.round(this.#target * 1.5));
    this.#tell("starved", reply, frame);
  }

  #measure(reply, out, written, frame) {
    for (let i = 0; i < written; i += 1) {
      this.#power += out[i] * out[i];
      if (!reply.audible && Math.abs(out[i]) > AUDIBLE) {
        reply.audible = true;
        this.#events.push({ type: "onset", index: reply.index, frame: frame + i });
      }
    }
    this.#sinceReport += written;
  }

  #tell(type, reply, frame) {
    const rms = this.#sinceReport > 0 ? Math.sqrt(this.#power / this.#sinceReport) : 0;
    this.#events.push({ type, index: reply.index, played: reply.resampler.position, frame, rms, target: this.#target });
    this.#sinceReport = 0;
    this.#power = 0;
  }
}

/** A linear fade over the block: cutting speech dead would click. */
function fadeOut(out, written) {
  for (let i = 0; i < written; i += 1) out[i] *= 1 - (i + 1) / written;
}

/** And back. */
function fadeIn(out, written) {
  for (let i = 0; i < written; i += 1) out[i] *= (i + 1) / written;
}

if (globalThis.AudioWorkletProcessor) {
  registerProcessor(
    "relay-playback",
    class extends AudioWorkletProcessor {
      #core = new PlaybackCore(sampleRate);

      constructor() {
        super();
        this.port.onmessage = ({ data }) => {
          if (data.type === "audio") this.#core.add(data.index, data.first, data.pcm);
          else if (data.type === "end") this.#core.end(data.index);
          else if (data.type === "hold") this.#core.hold(data.held);
          else if (data.type === "flush") this.#core.flush(data.upTo);
          else if (data.type === "restart") this.#core = new PlaybackCore(sampleRate);
        };
      }

      process(_inputs, [channels]) {
        this.#core.render(channels[0], currentFrame);
        for (let i = 1; i < channels.length; i += 1) channels[i].set(channels[0]);
        const events = this.#core.events();
        if (events.length > 0) this.port.postMessage(events);
        return true;
      }
    },
  );
}
