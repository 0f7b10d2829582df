// The recording that can be saved: both voices, where they were heard, to the sample.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Recording } from "../../web/recording.js";

const ramp = (length, start = 1) => Int16Array.from({ length }, (_, i) => start + i);

/** The two tracks of a recording's WAV file, and its header. */
function read(recording) {
  const file = Buffer.concat(recording.wav().map((part) => Buffer.from(part)));
  const tracks = [[], []];
  for (let at = 44; at < file.length; at += 2) tracks[((at - 44) / 2) % 2].push(file.readInt16LE(at));
  return { file, microphone: tracks[0], speaker: tracks[1] };
}

test("an empty recording is a WAV file without samples", () => {
  const { file } = read(new Recording());
  assert.equal(file.length, 44);
});

test("the header is that of a stereo file at 24 kHz with 16 bits", () => {
  const recording = new Recording();
  recording.begin(24000);
  recording.microphone(ramp(480), 480);
  const { file } = read(recording);
  assert.equal(file.toString("latin1", 0, 4) + file.toString("latin1", 8, 16), "RIFFWAVEfmt ");
  assert.equal(file.readUInt32LE(4), file.length - 8);
  assert.deepEqual(
    [20, 22, 32, 34].map((at) => file.readUInt16LE(at)),
    [1, 2, 4, 16],
  );
  assert.deepEqual(
    [24, 28, 40].map((at) => file.readUInt32LE(at)),
    [24000, 96000, 480 * 4],
  );
  assert.equal(recording.seconds, 0.02);
});

for (const contextHz of [24000, 44100, 48000]) {
  test(`both voices lie where the sound card at ${contextHz} Hz heard and played them`, () => {
    const recording = new Recording();
    recording.begin(contextHz);
    const frame = (sample) => Math.ceil((sample * contextHz) / 24000);
    for (let n = 1; n <= 50; n += 1) recording.microphone(ramp(480, 480 * (n - 1) + 1), frame(480 * n) + (n % 3));
    recording.received("r", 0, ramp(600));
    recording.received("r", 600, ramp(600, 601));
    // It begins at 12,000, in steps that are not those of its arrival, and a little off the grid.
    for (let played = 250; played <= 1000; played += 250) recording.played("r", played, frame(12000 + played));
    recording.finished("r");
    const { microphone, speaker } = read(recording);
    assert.deepEqual(microphone, [...ramp(24000)]);
    const start = speaker.findIndex((x) => x !== 0);
    assert.ok(Math.abs(start - 12000) <= 1, `${start}`);
    assert.deepEqual(speaker.slice(start, start + 1000), [...ramp(1000)]);
    assert.ok(
      speaker.slice(start + 1000).every((x) => x === 0),
      "what was not played is not there",
    );
  });
}

test("a pause in the playing is a pause in the recording", () => {
  const recording = new Recording();
  recording.begin(24000);
  recording.received("r", 0, ramp(200));
  recording.played("r", 100, 5000);
  recording.played("r", 200, 7100);
  const { speaker } = read(recording);
  assert.deepEqual(speaker.slice(4900, 5000), [...ramp(100)]);
  assert.ok(speaker.slice(5000, 7000).every((x) => x === 0));
  assert.deepEqual(speaker.slice(7000), [...ramp(100, 101)]);
});

test("a new sound card follows what was recorded", () => {
  const recording = new Recording();
  recording.begin(48000);
  recording.microphone(ramp(480), 48000);
  recording.begin(44100);
  recording.microphone(ramp(480), 441 * 20);
  const { microphone } = read(recording);
  assert.equal(microphone.length, 24000 + 4800);
  assert.deepEqual(microphone.slice(-480), [...ramp(480)]);
});

test("what lies longer back than a quarter of an hour is dropped", () => {
  const recording = new Recording();
  recording.begin(24000);
  for (let second = 1; second <= 1000; second += 1)
    recording.microphone(new Int16Array(480).fill(second), second * 24000);
  assert.equal(recording.firstSample, (1000 - 900) * 24000);
  assert.equal(recording.seconds, 900);
  assert.equal(
    recording.wav().reduce((sum, part) => sum + part.byteLength, 0),
    44 + 900 * 96000,
  );
});

test("what is not known is not recorded", () => {
  const recording = new Recording();
  recording.played("nobody", 100, 100);
  assert.equal(recording.seconds, 0);
});
