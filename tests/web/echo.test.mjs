// The echo check: a sweep, and how much of it comes back through rooms made here.

import assert from "node:assert/strict";
import { test } from "node:test";

import { AFTER_S, BEFORE_S, SWEEP_S, echoAdvice, measureEcho, sweep } from "../../web/echo.js";

const HZ = 24000;

/** Noise in [-1, 1] that is the same in every run. */
function noise(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** What a microphone hears: noise of `noiseDb`, and the sweep over paths `[delayMs, gainDb]`. */
function room(paths, noiseDb, seed = 1) {
  const next = noise(seed);
  const loud = Math.sqrt(3) * 10 ** (noiseDb / 20);
  const heard = Float32Array.from({ length: Math.round((BEFORE_S + SWEEP_S + AFTER_S) * HZ) }, () => loud * next());
  const played = sweep(HZ);
  for (const [delayMs, gainDb] of paths) {
    const at = Math.round((BEFORE_S + delayMs / 1000) * HZ);
    played.forEach((x, i) => {
      if (at + i < heard.length) heard[at + i] += 10 ** (gainDb / 20) * x;
    });
  }
  return heard;
}

for (const gainDb of [0, -10, -20, -30, -40]) {
  test(`an echo of ${gainDb} dB is measured, with its delay`, () => {
    for (const delayMs of [0, 12, 130, 480]) {
      const { echoDb, delayMs: found } = measureEcho(room([[delayMs, gainDb]], -65, delayMs + 1), HZ);
      assert.ok(Math.abs(echoDb - gainDb) < 1.5, `${echoDb} dB instead of ${gainDb}`);
      assert.ok(Math.abs(found - delayMs) < 1, `${found} ms instead of ${delayMs}`);
    }
  });
}

test("reflections add to the echo", () => {
  const reflections = [
    [20, -20],
    [27, -23],
    [41, -26],
  ];
  const { echoDb } = measureEcho(room(reflections, -70), HZ);
  assert.ok(echoDb > -20 && echoDb < -14, `${echoDb} dB`);
});

test("a room without an echo has none, however noisy", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { echoDb, roomDb } = measureEcho(room([], -30 - seed, seed), HZ);
    assert.equal(echoDb, null);
    assert.ok(Math.abs(roomDb - (-30 - seed) + 4.8) < 2, `${roomDb}`); // a third of the noise lies below 4 kHz
  }
});

test("a dead microphone is told from a quiet room", () => {
  const dead = measureEcho(new Float32Array(Math.round(2.2 * HZ)), HZ);
  assert.equal(dead.echoDb, null);
  assert.match(echoAdvice(dead), /nothing at all/);
  assert.match(echoAdvice(measureEcho(room([], -60), HZ)), /^Good/);
});

test("what to do depends on how loud it is", () => {
  const advice = (gainDb) => echoAdvice(measureEcho(room([[30, gainDb]], -75), HZ));
  assert.match(advice(-45), /-45 dB, 30 ms later. That is quiet enough/);
  assert.match(advice(-25), /turn the loudspeaker down/);
  assert.match(advice(-5), /use headphones/);
});
