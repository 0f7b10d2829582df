// The shape of a reply's sound.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Peaks, columns } from "../../web/waveform.js";

test("peaks do not depend on how the audio was cut", () => {
  const pcm = Int16Array.from({ length: 5000 }, (_, i) => Math.round(32767 * Math.sin(i) * (i / 5000)));
  const whole = new Peaks();
  whole.add(0, pcm);
  const pieces = new Peaks();
  for (let at = 0; at < pcm.length; at += 173) pieces.add(at, pcm.subarray(at, at + 173));
  assert.deepEqual(pieces.values, whole.values);
  assert.equal(whole.samples, 5000);
  assert.equal(whole.values.length, Math.ceil(5000 / 240));
  assert.ok(whole.values.every((value) => value >= 0 && value <= 1));
});

test("the loudest sample counts, of either sign, and what is missing is silence", () => {
  const peaks = new Peaks();
  peaks.add(480, Int16Array.of(100, -32768, 5));
  assert.deepEqual(peaks.values, [0, 0, 1]);
  assert.equal(peaks.samples, 483);
});

test("columns say what was drafted, what was heard and what never will be", () => {
  const peaks = new Peaks();
  peaks.add(0, new Int16Array(96000).fill(16384));
  const at = { width: 100, step: 10, played: 48000, joined: 19200 };
  const parts = (cut) => columns(peaks, { ...at, cut }).map(({ part }) => part);
  assert.deepEqual(parts(false), [...Array(2).fill("draft"), ...Array(3).fill("heard"), ...Array(5).fill("ahead")]);
  assert.deepEqual(parts(true).slice(5), Array(5).fill("unheard"));
  assert.ok(columns(peaks, { ...at, cut: false }).every(({ height }) => height === 0.5));
});

test("a short reply does not fill the page", () => {
  const peaks = new Peaks();
  peaks.add(0, new Int16Array(24000));
  const found = columns(peaks, { width: 100, step: 10, played: 0, joined: 0, cut: false });
  assert.equal(found.length, 5); // one second of two
});
