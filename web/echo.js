// How much of the loudspeaker the microphone hears: a sweep is played, and looked for in what comes back.
// Pure: samples in, figures and words out.

import { Resampler } from "./resampler.js";

export const SWEEP_S = 1;
export const BEFORE_S = 0.5; // the room alone, before the sweep
export const AFTER_S = 0.7; // the longest way that is looked for: wireless loudspeakers take a third of a second
const SWEEP_HZ = { from: 300, to: 3400 }; // where speech is
const SWEEP_LEVEL = 0.25; // -12 dBFS at its peak, as loud as speech
const WORK_HZ = 8000;
const FOUND_RATIO = 8; // how far its correlation must stand out from the median of all delays: 5.4 sigma of noise

/** The sweep (Farina, AES 2000: exponential, so that every octave is as long), [samples] in [-1, 1] at `rateHz`. */
export function sweep(rateHz) {
  const length = Math.round(SWEEP_S * rateHz);
  const octaves = Math.log(SWEEP_HZ.to / SWEEP_HZ.from);
  return Float32Array.from({ length }, (_, i) => {
    const t = i / rateHz;
    const phase = ((2 * Math.PI * SWEEP_HZ.from * SWEEP_S) / octaves) * (Math.exp((t / SWEEP_S) * octaves) - 1);
    const edge = Math.min(1, t / 0.02, (SWEEP_S - t) / 0.02);
    return SWEEP_LEVEL * edge * Math.sin(phase);
  });
}

const power = (samples) => samples.reduce((sum, x) => sum + x * x, 0) / Math.max(1, samples.length);
const decibels = (ratio) => 10 * Math.log10(Math.max(ratio, 1e-12));

/**
 * What a microphone heard of the sweep.
 *
 * @param {Float32Array} heard  at `rateHz`: BEFORE_S of the room, then from the moment the sweep began to play on
 * @returns {{echoDb: number | null, delayMs: number | null, roomDb: number}}
 *   echoDb: level of what came back against what was played, null when it is lost in the room's own noise;
 *   delayMs: how long it took; roomDb: the room's noise in dBFS
 */
export function measureEcho(heard, rateHz) {
  const sound = downsample(heard, rateHz);
  const played = downsample(sweep(rateHz), rateHz);
  const start = Math.round(BEFORE_S * WORK_HZ);
  const room = power(sound.subarray(0, start));
  const lags = Math.max(1, Math.min(Math.round(AFTER_S * WORK_HZ), sound.length - start - played.length));
  const match = Float64Array.from({ length: lags }, (_, lag) => {
    let sum = 0;
    for (let i = 0; i < played.length; i += 1) sum += played[i] * (sound[start + lag + i] ?? 0);
    return Math.abs(sum);
  });
  let best = 0;
  match.forEach((value, lag) => {
    if (value > match[best]) best = lag;
  });
  const usual = match.toSorted()[Math.floor(match.length / 2)];
  const came = power(sound.subarray(start + best, start + best + played.length)) - room;
  const roomDb = decibels(room);
  if (match[best] === 0 || match[best] < FOUND_RATIO * usual || came <= 0)
    return { echoDb: null, delayMs: null, roomDb };
  return { echoDb: decibels(came / power(played)), delayMs: (best * 1000) / WORK_HZ, roomDb };
}

/** The result in words: what was found, and what to do about it. */
export function echoAdvice({ echoDb, delayMs, roomDb }) {
  if (echoDb === null)
    return roomDb <= -90
      ? "The microphone heard nothing at all, not even the room: choose another one, or unmute it."
      : "Good: the microphone does not hear the loudspeaker. Relay can be interrupted, and does not interrupt itself.";
  const found = `The microphone hears the loudspeaker at ${Math.round(echoDb)} dB, ${Math.round(delayMs)} ms later.`;
  if (echoDb < -35) return `${found} That is quiet enough.`;
  if (echoDb < -15) return `${found} Relay may interrupt itself: turn the loudspeaker down, or use headphones.`;
  return `${found} Relay will interrupt itself: use headphones.`;
}

function downsample(samples, rateHz) {
  const resampler = new Resampler(rateHz, WORK_HZ);
  resampler.push(samples);
  resampler.finish();
  const out = new Float32Array(Math.ceil((samples.length * WORK_HZ) / rateHz));
  return out.subarray(0, resampler.read(out));
}
