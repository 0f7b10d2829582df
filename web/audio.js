// Sound in and out: the browser's side of both worklets. Positions are samples at 24 kHz.

import { FRAME_SAMPLES, WIRE_HZ } from "./capture-worklet.js";

const FRAME_MS = (FRAME_SAMPLES * 1000) / WIRE_HZ;
// Gecko asks the device for its latency while it holds the lock that its audio callback waits for: pages hung for good
// (seen with Firefox 153 on PulseAudio).
const LATENCY_CALL_HANGS = "mozInnerScreenX" in globalThis;
const REMEMBERED_FRAMES = 3000; // one minute
const SILENT_FRAMES = 150; // three seconds

/** Whether this page may use a microphone and audio worklets at all: browsers offer them to secure origins only. */
export const soundAllowed = () => Boolean(window.isSecureContext && navigator.mediaDevices && window.AudioWorkletNode);

/** What a failed request for the microphone means, in words for the person in front of it. */
export function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return "The microphone is blocked. Allow it in the browser’s address bar and try again. Typing works meanwhile.";
    case "NotFoundError":
      return "No microphone was found. Plug one in and try again. Typing works meanwhile.";
    case "NotReadableError":
    case "AbortError":
      return "The microphone is in use by another program. Close it and try again. Typing works meanwhile.";
    default:
      return `The microphone could not be opened (${error.message || error.name}). Typing works meanwhile.`;
  }
}

/** Loads both worklets into a context. Rejects if the server does not give them. */
export async function loadWorklets(context) {
  const modules = ["capture-worklet.js", "playback-worklet.js"].map((file) => new URL(file, import.meta.url));
  await Promise.all(modules.map((module) => context.audioWorklet.addModule(module)));
}

/** When the page heard each moment of a session's input. Every session counts its input from zero. */
export class InputClock {
  #frames = 0;
  #heardMs = new Float64Array(REMEMBERED_FRAMES);

  /** Notes that a frame went out to the server at `nowMs`, just after its last sample was heard. */
  sent(nowMs) {
    this.#heardMs[this.#frames % REMEMBERED_FRAMES] = nowMs;
    this.#frames += 1;
  }

  /** The time, on the clock of `sent`, at which moment `inputMs` was heard; undefined if it is unknown or long ago. */
  heardAtMs(inputMs) {
    const frame = Math.max(0, Math.ceil(inputMs / FRAME_MS) - 1);
    if (frame >= this.#frames || frame < this.#frames - REMEMBERED_FRAMES) return undefined;
    return this.#heardMs[frame % REMEMBERED_FRAMES] - ((frame + 1) * FRAME_MS - inputMs);
  }
}

/**
 * The microphone. Calls `onframe(pcm: Int16Array, level, frame)` every 20 ms, `frame` being the context's clock at its
 * end; `onended()` when the device is gone; `onsilence(true)` when it has given nothing at all for three seconds, not
 * even noise, and `onsilence(false)` with the first sound.
 */
export class Microphone {
  onframe = (_pcm, _level, _frame) => {};
  onended = () => {};
  onsilence = (_silent) => {};
  #stream;
  #source;
  #node;
  #silentFrames = 0;
  #alive = false; // something was heard: silence is a quiet room from then on

  /**
   * Asks for a microphone, the one called `deviceId` if that is there; rejects with the DOMException that
   * `microphoneProblem` explains.
   */
  static async open(context, deviceId = "") {
    const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    if (deviceId) audio.deviceId = { ideal: deviceId };
    return new Microphone(context, await navigator.mediaDevices.getUserMedia({ audio }));
  }

  constructor(context, stream) {
    this.#stream = stream;
    this.#source = context.createMediaStreamSource(stream);
    this.#node = new AudioWorkletNode(context, "relay-capture", { numberOfOutputs: 0 });
    this.#node.port.onmessage = ({ data: { pcm, level, frame } }) => {
      this.#listen(level);
      this.onframe(pcm, level, frame);
    };
    this.#source.connect(this.#node);
    for (const track of stream.getTracks()) track.onended = () => this.onended();
  }

  #listen(level) {
    if (this.#alive || this.muted) return;
    this.#alive = level > 0;
    this.#silentFrames += 1;
    if (this.#alive || this.#silentFrames === SILENT_FRAMES) this.onsilence(!this.#alive);
  }

  /** The device's id, as `enumerateDevices` tells it. */
  get deviceId() {
    return this.#stream.getTracks()[0].getSettings().deviceId ?? "";
  }

  get muted() {
    return !this.#stream.getTracks()[0].enabled;
  }

  /** A muted microphone goes on sending, silence: so the server notices that the user has finished. */
  set muted(muted) {
    for (const track of this.#stream.getTracks()) track.enabled = !muted;
  }

  close() {
    for (const track of this.#stream.getTracks()) {
      track.onended = null;
      track.stop();
    }
    this.#source.disconnect();
    this.#node.port.onmessage = null;
  }
}

/** The loudspeaker. Calls `onevent(event)` for every event of PlaybackCore; knows what can be heard at this moment. */
export class Speaker {
  onevent = (_event) => {};
  #context;
  #node;
  #latest = null; // the newest event with a position
  #latencyS = 0;

  constructor(context) {
    this.#context = context;
    this.#node = new AudioWorkletNode(context, "relay-playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#node.connect(context.destination);
    this.#node.port.onmessage = ({ data }) => {
      for (const event of data) {
        if (event.type !== "onset") this.#latest = event;
        this.onevent(event);
      }
    };
  }

  /** Plays `pcm` (Int16Array, given away) at position `first` of reply `index`. */
  play(index, first, pcm) {
    this.#node.port.postMessage({ type: "audio", index, first, pcm }, [pcm.buffer]);
  }

  /** No more audio of reply `index` will come. */
  end(index) {
    this.#node.port.postMessage({ type: "end", index });
  }

  /** Silence, now, and all that waits is kept (`held`); or plays on where it was held. */
  hold(held) {
    this.#node.port.postMessage({ type: "hold", held });
  }

  /** Silence, now, for all replies up to index `upTo`. */
  flush(upTo) {
    this.#node.port.postMessage({ type: "flush", upTo });
  }

  /** A new session numbers its replies from the beginning. */
  restart() {
    this.#node.port.postMessage({ type: "restart" });
    this.#latest = null;
  }

  /** Learns how long sound takes from the context to the ear; where that cannot be asked, it counts as nothing. */
  measureLatency() {
    if (LATENCY_CALL_HANGS) return;
    const { contextTime, performanceTime } = this.#context.getOutputTimestamp();
    if (contextTime === 0) return; // nothing has come out yet
    const leaving = contextTime + (performance.now() - performanceTime) / 1000;
    this.#latencyS = Math.max(0, this.#context.currentTime - leaving);
  }

  /** In how many milliseconds a frame of the context will be heard; negative when it has been. */
  heardInMs(frame) {
    return (frame / this.#context.sampleRate - this.#context.currentTime + this.#latencyS) * 1000;
  }

  /** What can be heard now: `{index, played}`, or null. It trails what was rendered by the output's latency. */
  heard() {
    if (!this.#latest) return null;
    const { index, played, frame } = this.#latest;
    const behind = (Math.max(0, this.heardInMs(frame)) * WIRE_HZ) / 1000;
    return { index, played: Math.max(0, Math.round(played - behind)) };
  }

  close() {
    this.#node.port.onmessage = null;
    this.#node.disconnect();
  }
}
