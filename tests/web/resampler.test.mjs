// The streaming resampler, at the rates sound devices have. Run by `node --test`, which test_node.py does.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Resampler } from "../../web/resampler.js";

const RATES = [8000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000];

/** Numbers in [0, 1) that are the same in every run (a linear congruential generator). */
function pseudoRandom(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

function tone(hz, rateHz, seconds, amplitude = 0.5) {
  return Float32Array.from(
    { length: Math.round(rateHz * seconds) },
    (_, i) => amplitude * Math.sin((2 * Math.PI * hz * i) / rateHz),
  );
}

/** Everything the resampler gives for `input`, pushed in pieces of the sizes that `next` returns. */
function convert(input, inputHz, outputHz, next = () => 128) {
  const resampler = new Resampler(inputHz, outputHz);
  const output = [];
  const block = new Float32Array(97); // no divisor of anything
  const drain = () => {
    for (let n = resampler.read(block); n > 0; n = resampler.read(block)) output.push(...block.subarray(0, n));
  };
  for (let at = 0; at < input.length;) {
    const end = Math.min(input.length, at + next());
    resampler.push(input.subarray(at, end));
    at = end;
    drain();
  }
  resampler.finish();
  drain();
  assert.ok(resampler.done);
  return Float32Array.from(output);
}

function rms(samples) {
  return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
}

/** What is left of `samples` when a tone of `hz` has been fitted and taken out, and the tone's amplitude. */
function fit(samples, hz, rateHz) {
  let c = 0;
  let s = 0;
  samples.forEach((x, i) => {
    c += (2 / samples.length) * x * Math.cos((2 * Math.PI * hz * i) / rateHz);
    s += (2 / samples.length) * x * Math.sin((2 * Math.PI * hz * i) / rateHz);
  });
  const rest = samples.map(
    (x, i) => x - c * Math.cos((2 * Math.PI * hz * i) / rateHz) - s * Math.sin((2 * Math.PI * hz * i) / rateHz),
  );
  return { amplitude: Math.hypot(c, s), rest: rms(rest) };
}

const decibels = (ratio) => 20 * Math.log10(ratio);

for (const deviceHz of RATES) {
  for (const [from, to] of [
    [deviceHz, 24000],
    [24000, deviceHz],
  ]) {
    test(`${from} -> ${to} Hz: length, tones kept, constant kept`, () => {
      const seconds = 0.25;
      const input = tone(1000, from, seconds);
      const output = convert(input, from, to);
      assert.equal(output.length, Math.ceil((input.length * to) / from));
      const middle = output.subarray(Math.round(0.05 * to), Math.round(0.2 * to)); // 150 whole periods
      const { amplitude, rest } = fit(middle, 1000, to);
      assert.ok(Math.abs(decibels(amplitude / 0.5)) < 0.02, `amplitude ${amplitude}`);
      assert.ok(decibels(rest / rms(middle)) < -70, `distortion ${decibels(rest / rms(middle))} dB`);

      const flat = convert(new Float32Array(2000).fill(0.25), from, to);
      const inner = flat.subarray(Math.ceil((600 * to) / from), Math.floor((1400 * to) / from));
      for (const value of inner) assert.ok(Math.abs(value - 0.25) < 1e-5, `constant became ${value}`);
    });

    test(`${from} -> ${to} Hz: output k lies at input time k * from / to`, () => {
      const output = convert(tone(440, from, 0.2), from, to);
      for (let k = Math.round(0.05 * to); k < 0.15 * to; k += 1) {
        assert.ok(Math.abs(output[k] - 0.5 * Math.sin((2 * Math.PI * 440 * k) / to)) < 1e-3);
      }
    });

    test(`${from} -> ${to} Hz: the pieces do not matter`, () => {
      const random = pseudoRandom(from + to);
      const input = Float32Array.from({ length: 3000 }, () => random() - 0.5);
      const whole = convert(input, from, to, () => input.length);
      for (let round = 0; round < 5; round += 1) {
        assert.deepEqual(
          convert(input, from, to, () => Math.floor(random() ** 3 * 700)),
          whole,
        );
      }
    });
  }
}

for (const deviceHz of RATES.filter((rate) => rate > 24000)) {
  test(`${deviceHz} -> 24000 Hz: what would fold back is gone`, () => {
    for (const hz of [12500, 13500, 15000, 0.5 * deviceHz - 100].filter((f) => f < deviceHz / 2)) {
      const output = convert(tone(hz, deviceHz, 0.2), deviceHz, 24000).subarray(1000, 3800);
      assert.ok(decibels(rms(output) / rms(tone(hz, deviceHz, 0.2))) < -75, `${hz} Hz came through`);
    }
  });

  test(`24000 -> ${deviceHz} Hz: no images`, () => {
    const output = convert(tone(9000, 24000, 0.2), 24000, deviceHz);
    const middle = output.subarray(Math.round(0.05 * deviceHz), Math.round(0.15 * deviceHz)); // 900 whole periods
    const { amplitude, rest } = fit(middle, 9000, deviceHz);
    assert.ok(Math.abs(decibels(amplitude / 0.5)) < 0.02);
    assert.ok(decibels(rest / rms(middle)) < -70);
  });
}

test("the position counts the input samples before the next output, and ends at their number", () => {
  const resampler = new Resampler(24000, 48000);
  resampler.push(new Float32Array(1000));
  resampler.finish();
  const one = new Float32Array(1);
  for (let k = 0; k < 2000; k += 1) {
    assert.equal(resampler.position, Math.ceil(k / 2));
    assert.equal(resampler.read(one), 1);
  }
  assert.equal(resampler.position, 1000);
  assert.equal(resampler.buffered, 0);
  assert.equal(resampler.read(one), 0);
  assert.ok(resampler.done);
});

test("equal rates copy", () => {
  const random = pseudoRandom(7);
  const input = Float32Array.from({ length: 1000 }, () => random() - 0.5);
  assert.deepEqual(convert(input, 24000, 24000), input);
});
