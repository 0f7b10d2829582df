// The cores of both audio worklets, outside a browser: framing, the jitter buffer, and the account of what was played.

import assert from "node:assert/strict";
import { test } from "node:test";

import { InputClock } from "../../web/audio.js";
import { CaptureCore, FRAME_SAMPLES } from "../../web/capture-worklet.js";
import { PlaybackCore } from "../../web/playback-worklet.js";

const QUANTUM = 128;

function speech(samples, start = 0) {
  return Int16Array.from({ length: samples }, (_, i) =>
    Math.round(8000 * Math.sin((2 * Math.PI * 500 * (start + i)) / 24000)),
  );
}

/** Renders `seconds` of a core; returns what it wrote and what it told. */
function play(core, contextHz, seconds, clock = { frame: 0 }) {
  const quanta = Math.ceil((seconds * contextHz) / QUANTUM);
  const out = new Float32Array(quanta * QUANTUM);
  const events = [];
  for (let i = 0; i < quanta; i += 1) {
    core.render(out.subarray(i * QUANTUM, (i + 1) * QUANTUM), clock.frame);
    clock.frame += QUANTUM;
    events.push(...core.events());
  }
  return { out, events };
}

const audible = (out) => out.some((x) => x !== 0);
const of = (events, type) => events.filter((event) => event.type === type);

for (const contextHz of [24000, 44100, 48000, 96000]) {
  test(`at ${contextHz} Hz a reply is played whole, once, and counted exactly`, () => {
    const core = new PlaybackCore(contextHz);
    for (let at = 0; at < 24000; at += 480) core.add(1, at, speech(480, at));
    core.end(1);
    const { out, events } = play(core, contextHz, 1.2);
    const [finished] = of(events, "finished");
    assert.equal(finished.played, 24000);
    assert.equal(finished.frame, contextHz); // one second of the context's own time
    const middle = out.subarray(Math.round(0.1 * contextHz), Math.round(0.9 * contextHz));
    for (let i = 0; i < middle.length; i += 1) {
      const expected = (8000 / 32768) * Math.sin((2 * Math.PI * 500 * (i + Math.round(0.1 * contextHz))) / contextHz);
      assert.ok(Math.abs(middle[i] - expected) < 1e-3);
    }
    assert.ok(!audible(out.subarray(contextHz)));
    const positions = of(events, "played").map((event) => event.played);
    assert.ok(positions.length >= 40);
    assert.deepEqual(
      positions,
      positions.toSorted((a, b) => a - b),
    );
    assert.ok(
      of(events, "played").every((event) => Math.abs(event.played / 24000 - event.frame / contextHz) < 1 / 24000),
    );
  });
}

test("playback waits for the jitter buffer, and a reply shorter than it is played when it ends", () => {
  const core = new PlaybackCore(48000);
  core.add(1, 0, speech(core.targetSamples - 1));
  assert.ok(!audible(play(core, 48000, 0.1).out));
  core.end(1);
  const { events } = play(core, 48000, 0.1);
  assert.equal(of(events, "finished")[0].played, 959);
});

test("a buffer that ran dry fills up again, deeper, and nothing is lost or played twice", () => {
  const core = new PlaybackCore(48000);
  const clock = { frame: 0 };
  const before = core.targetSamples;
  core.add(1, 0, speech(2400));
  const first = play(core, 48000, 0.2, clock);
  assert.equal(of(first.events, "starved").length, 1);
  assert.ok(core.targetSamples > before);
  core.add(1, 2400, speech(480, 2400));
  assert.ok(!audible(play(core, 48000, 0.1, clock).out));
  core.add(1, 2880, speech(4320, 2880));
  core.end(1);
  const rest = play(core, 48000, 0.4, clock);
  assert.equal(of(rest.events, "finished")[0].played, 7200);
  const joined = [...first.out, ...rest.out].filter((x) => x !== 0);
  assert.ok(
    joined.every((x, i) => i === 0 || Math.abs(x - joined[i - 1]) < 0.04),
    "the wave has a step",
  );
});

test("the buffer gets shallower while replies arrive in time, and has a floor", () => {
  const core = new PlaybackCore(48000);
  for (let index = 1; index <= 30; index += 1) {
    core.add(index, 0, speech(480));
    core.end(index);
  }
  play(core, 48000, 1);
  assert.equal(core.targetSamples, 480);
});

test("a flush stops within one block, fading, and tells exactly what was played", () => {
  const core = new PlaybackCore(48000);
  const clock = { frame: 0 };
  core.add(1, 0, speech(24000));
  play(core, 48000, 0.25, clock);
  core.flush();
  const { out, events } = play(core, 48000, 0.25, clock);
  const [flushed] = of(events, "flushed");
  assert.equal(flushed.played, (94 + 1) * (QUANTUM / 2)); // 94 blocks before the flush, and the one that fades
  assert.equal(flushed.frame, 95 * QUANTUM);
  assert.ok(!audible(out.subarray(QUANTUM - 1)));
  assert.ok(Math.abs(out[QUANTUM - 2]) < 0.01);
});

test("after a flush late audio of the old reply is dropped, and the next reply is heard", () => {
  const core = new PlaybackCore(48000);
  core.add(1, 0, speech(24000));
  play(core, 48000, 0.1);
  core.flush();
  play(core, 48000, 0.1);
  core.add(1, 24000, speech(24000));
  core.end(1);
  const late = play(core, 48000, 0.5);
  assert.ok(!audible(late.out));
  assert.equal(late.events.length, 0);
  core.add(2, 0, speech(2400));
  core.end(2);
  assert.equal(of(play(core, 48000, 0.5).events, "finished")[0].index, 2);
});

test("a flush drops every reply that waits, played or not, and those announced but not yet here", () => {
  const core = new PlaybackCore(48000);
  core.add(1, 0, speech(24000));
  core.add(2, 0, speech(24000));
  play(core, 48000, 0.1);
  core.flush(3);
  const { events } = play(core, 48000, 0.1);
  assert.deepEqual(
    of(events, "flushed").map(({ index, played }) => [index, played > 0]),
    [
      [1, true],
      [2, false],
    ],
  );
  core.add(3, 0, speech(24000));
  assert.ok(!audible(play(core, 48000, 0.2).out));
});

test("a flush with nothing to play tells nothing", () => {
  const core = new PlaybackCore(48000);
  core.flush();
  assert.deepEqual(play(core, 48000, 0.1).events, []);
});

test("replies follow one another in order, without a gap", () => {
  const core = new PlaybackCore(48000);
  for (const index of [1, 2]) {
    core.add(index, 0, speech(2400));
    core.end(index);
  }
  const { events } = play(core, 48000, 0.5);
  assert.deepEqual(
    of(events, "finished").map(({ index, played }) => [index, played]),
    [
      [1, 2400],
      [2, 2400],
    ],
  );
});

test("a reply without audio is over at once and does not hold up the next", () => {
  const core = new PlaybackCore(48000);
  core.end(1);
  core.add(2, 0, speech(2400));
  core.end(2);
  assert.deepEqual(
    of(play(core, 48000, 0.5).events, "finished").map(({ index, played }) => [index, played]),
    [
      [1, 0],
      [2, 2400],
    ],
  );
});

test("repeated samples are played once, missing ones are silence", () => {
  const core = new PlaybackCore(24000);
  core.add(1, 0, speech(2400));
  core.add(1, 1200, speech(2400, 1200));
  core.add(1, 4800, speech(2400, 4800));
  core.end(1);
  const { out, events } = play(core, 24000, 0.5);
  assert.equal(of(events, "finished")[0].played, 7200);
  assert.deepEqual(
    [...out.subarray(0, 7200)],
    [...speech(7200)].map((x, i) => (i >= 3600 && i < 4800 ? 0 : x / 32768)),
  );
});

test("the onset is the first sample above -50 dBFS", () => {
  const core = new PlaybackCore(24000);
  const pcm = new Int16Array(2400);
  pcm.fill(60, 0, 1000);
  pcm.fill(2000, 1000);
  core.add(1, 0, pcm);
  core.end(1);
  const [onset] = of(play(core, 24000, 0.2).events, "onset");
  assert.deepEqual(onset, { type: "onset", index: 1, frame: 1000 });
});

test("the level is the root mean square of what was played", () => {
  const core = new PlaybackCore(48000);
  core.add(1, 0, speech(24000));
  const { events } = play(core, 48000, 0.5);
  const steady = of(events, "played").slice(2);
  assert.ok(steady.every(({ rms }) => Math.abs(rms - 8000 / 32768 / Math.SQRT2) < 0.01));
});

for (const deviceHz of [16000, 44100, 48000]) {
  test(`the microphone at ${deviceHz} Hz gives frames of 20 ms at 24 kHz`, () => {
    const core = new CaptureCore(deviceHz);
    const frames = [];
    for (let at = 0; at < deviceHz; at += QUANTUM) {
      const block = Float32Array.from(
        { length: QUANTUM },
        (_, i) => 0.5 * Math.sin((2 * Math.PI * 300 * (at + i)) / deviceHz),
      );
      frames.push(...core.push([block]));
    }
    assert.ok(frames.length === 49 || frames.length === 50);
    frames.forEach(({ pcm, level }, n) => {
      assert.equal(pcm.length, FRAME_SAMPLES);
      if (n === 0) return;
      assert.ok(Math.abs(level - 0.5 / Math.SQRT2) < 1e-3);
      pcm.forEach((x, i) => {
        const expected = 0.5 * 32767 * Math.sin((2 * Math.PI * 300 * (n * FRAME_SAMPLES + i)) / 24000);
        assert.ok(Math.abs(x - expected) < 20);
      });
    });
  });
}

test("channels are averaged and loud samples clipped", () => {
  const core = new CaptureCore(24000);
  const left = new Float32Array(481).fill(1.0);
  const [{ pcm }] = core.push([left, new Float32Array(481)]);
  assert.ok(pcm.every((x) => x === Math.round(0.5 * 32767)));
  const [{ pcm: loud }] = new CaptureCore(24000).push([new Float32Array(481).fill(-1.5)]);
  assert.ok(loud.every((x) => x === -32768));
});

test("the input clock knows when each moment of the input was heard", () => {
  const clock = new InputClock();
  assert.equal(clock.heardAtMs(0), undefined);
  for (let frame = 1; frame <= 4000; frame += 1) clock.sent(50_000 + 20 * frame + (frame % 2)); // jitter: 1 ms
  assert.equal(clock.heardAtMs(79_990), 50_000 + 79_990);
  assert.equal(clock.heardAtMs(79_970), 50_000 + 79_970 + 1);
  assert.equal(clock.heardAtMs(80_001), undefined); // not heard yet
  assert.equal(clock.heardAtMs(1000), undefined); // forgotten
});


test("a hold is silence after a fade that loses nothing; then the reply goes on where it was", () => {
  const core = new PlaybackCore(24000);
  core.add(1, 0, speech(24000));
  core.end(1);
  const clock = { frame: 0 };
  play(core, 24000, 0.2, clock);
  core.hold(true);
  const { out, events } = play(core, 24000, 0.5, clock);
  assert.ok(!audible(out.subarray(QUANTUM)));
  assert.ok(Math.abs(out[QUANTUM - 1]) < 1e-6, "it fades within the first block");
  assert.deepEqual(of(events, "starved"), []);
  core.hold(false);
  const rest = play(core, 24000, 1.0, clock);
  const [finished] = of(rest.events, "finished");
  assert.equal(finished.played, 24000);
  assert.ok(Math.abs(rest.out[0]) < 1e-2, "and comes back gently");
  assert.equal(of(rest.events, "starved").length, 0);
});

test("a flush ends a hold, and tells what was played before it", () => {
  const core = new PlaybackCore(24000);
  core.add(1, 0, speech(24000));
  const clock = { frame: 0 };
  play(core, 24000, 0.2, clock);
  core.hold(true);
  play(core, 24000, 0.1, clock);
  core.flush();
  const { out, events } = play(core, 24000, 0.1, clock);
  assert.ok(!audible(out));
  const [flushed] = of(events, "flushed");
  assert.ok(Math.abs(flushed.played - (0.2 * 24000 + QUANTUM)) <= 2 * QUANTUM);
  core.add(2, 0, speech(4800));
  core.end(2);
  assert.ok(audible(play(core, 24000, 0.3, clock).out));
});

test("a reply that comes while it is held waits", () => {
  const core = new PlaybackCore(24000);
  core.hold(true);
  core.add(1, 0, speech(4800));
  core.end(1);
  const clock = { frame: 0 };
  assert.ok(!audible(play(core, 24000, 0.3, clock).out));
  core.hold(false);
  assert.equal(of(play(core, 24000, 0.3, clock).events, "finished")[0].played, 4800);
});
