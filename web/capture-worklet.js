// The microphone's side of the audio thread: device rate -> 24 kHz int16 in frames of 20 ms.

import { Resampler } from "./resampler.js";

export const WIRE_HZ = 24000;
export const FRAME_SAMPLES = 480; // 20 ms

/** Cuts microphone audio of any rate into frames of the wire's rate. Pure: the worklet below only carries them. */
export class CaptureCore {
  #resampler;
  #frame = new Float32Array(FRAME_SAMPLES);
  #filled = 0;

  /** @param {number} deviceHz rate of the audio given to `push` */
  constructor(deviceHz) {
    this.#resampler = new Resampler(deviceHz, WIRE_HZ);
  }

  /**
   * Takes a block at the device's rate: one Float32Array per channel, all of one length; they are averaged.
   * Returns the frames it completed: `{pcm: Int16Array[480], level}`, level being the root mean square in [0, 1].
   */
  push(channels) {
    this.#resampler.push(channels.length === 1 ? channels[0] : average(channels));
    const frames = [];
    for (;;) {
      this.#filled += this.#resampler.read(this.#frame, this.#filled);
      if (this.#filled < FRAME_SAMPLES) return frames;
      this.#filled = 0;
      frames.push(quantise(this.#frame));
    }
  }
}

function average(channels) {
  const mono = new Float32Array(channels[0].length);
  for (const channel of channels) for (let i = 0; i < mono.length; i += 1) mono[i] += channel[i] / channels.length;
  return mono;
}

function quantise(frame) {
  const pcm = new Int16Array(frame.length);
  let power = 0;
  for (let i = 0; i < frame.length; i += 1) {
    power += frame[i] * frame[i];
    pcm[i] = Math.max(-32768, Math.min(32767, Math.round(frame[i] * 32767)));
  }
  return { pcm, level: Math.sqrt(power / frame.length) };
}

if (globalThis.AudioWorkletProcessor) {
  registerProcessor(
    "relay-capture",
    class extends AudioWorkletProcessor {
      #core = new CaptureCore(sampleRate);

      process([channels]) {
        // A source that has not started, or was stopped, has no channels: nothing was heard, nothing is sent.
        if (channels.length > 0) {
          const frame = currentFrame + channels[0].length; // the context's clock when the last sample was heard
          for (const { pcm, level } of this.#core.push(channels))
            this.port.postMessage({ pcm, level, frame }, [pcm.buffer]);
        }
        return true;
      }
    },
  );
}
