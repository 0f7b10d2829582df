// What the page shows of a dialogue: server events and the playback clock in, turns out.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Conversation } from "../../web/conversation.js";
import { timing } from "../../web/turns.js";

const WORDS = [
  { word: "One", start_sample: 0, end_sample: 1000 },
  { word: "two", start_sample: 1200, end_sample: 2000 },
  { word: "three.", start_sample: 2400, end_sample: 3400 },
];

/** A conversation that got `events`; its microphone heard input moment t at t + 100 000 ms. */
function after(...events) {
  const conversation = new Conversation((inputMs) => inputMs + 100_000);
  for (const event of events) conversation.receive(event);
  return conversation;
}

const started = (id) => ({ type: "input_audio_buffer.speech_started", item_id: id, audio_start_ms: 0 });
const stopped = (id) => ({ type: "input_audio_buffer.speech_stopped", item_id: id, audio_end_ms: 900 });
const partial = (id, stable, unstable) => ({ type: "relay.partial", item_id: id, stable, unstable });
const transcribed = (id, transcript) => ({
  type: "conversation.item.input_audio_transcription.completed",
  item_id: id,
  transcript,
});
const created = (id, index) => ({
  type: "response.created",
  response: { id, output_modalities: ["audio"], relay: { index } },
});
const said = (id, delta) => ({ type: "response.output_audio_transcript.delta", response_id: id, delta });
const words = (id, list = WORDS) => ({ type: "relay.words", response_id: id, words: list });
const done = (id, status = "completed", details = null) => ({
  type: "response.done",
  response: { id, status, status_details: details },
});

const speaking = () => {
  const conversation = after(created("r", 1), said("r", "One two three."), words("r"));
  conversation.audioReceived(1, 0, new Int16Array(3400), 10);
  return conversation;
};
const states = (reply) => reply.words.map((word) => reply.stateOf(word));

test("a spoken turn: partials, then the transcript", () => {
  const conversation = after(started("u"), partial("u", "what is", "the tim"));
  const [turn] = conversation.turns;
  assert.equal(turn.text, "what is the tim");
  assert.equal(conversation.activity, "hearing");
  conversation.receive(stopped("u"));
  assert.equal(conversation.activity, "thinking");
  conversation.receive(transcribed("u", " what is the time "));
  assert.equal(turn.text, "what is the time");
  assert.equal(turn.state, "done");
  assert.equal(conversation.activity, "listening");
});

test("a turn nobody understood", () => {
  const conversation = after(started("u"), stopped("u"), {
    type: "conversation.item.input_audio_transcription.failed",
    item_id: "u",
  });
  assert.equal(conversation.turns[0].state, "failed");
  assert.equal(conversation.activity, "listening");
});

test("typed text becomes a turn once, whoever echoes it", () => {
  const item = { id: "t", role: "user", content: [{ type: "input_text", text: "hello" }] };
  const conversation = after({ type: "conversation.item.added", item }, { type: "conversation.item.added", item });
  assert.deepEqual(
    conversation.turns.map(({ text, state }) => [text, state]),
    [["hello", "done"]],
  );
});

test("a speech item that was committed by hand, and an assistant's item", () => {
  const conversation = after(
    {
      type: "conversation.item.added",
      item: { id: "a", role: "user", content: [{ type: "input_audio", transcript: null }] },
    },
    { type: "conversation.item.added", item: { id: "b", role: "assistant", content: [] } },
  );
  assert.deepEqual(
    conversation.turns.map(({ id, state }) => [id, state]),
    [["a", "recognising"]],
  );
});

test("words are lit by the playback clock", () => {
  const conversation = speaking();
  const reply = conversation.reply(1);
  assert.deepEqual(states(reply), ["ahead", "ahead", "ahead"]);
  assert.equal(conversation.activity, "thinking");
  conversation.played(1, 1300);
  assert.deepEqual(states(reply), ["heard", "now", "ahead"]);
  assert.equal(conversation.activity, "speaking");
  conversation.receive(done("r"));
  assert.equal(conversation.activity, "speaking"); // sent whole, but not heard whole
  conversation.played(1, 3500, true);
  assert.deepEqual(states(reply), ["heard", "heard", "heard"]);
  assert.equal(conversation.activity, "listening");
  assert.equal(reply.heardText, "One two three.");
});

test("an interruption strikes out the words of which less than half was played", () => {
  const conversation = speaking();
  conversation.played(1, 1300);
  conversation.cut(1, 1590);
  const reply = conversation.reply(1);
  assert.deepEqual(states(reply), ["heard", "unheard", "unheard"]);
  assert.equal(reply.heardText, "One");
  conversation.played(1, 400); // the clock trails behind
  assert.deepEqual(states(reply), ["heard", "unheard", "unheard"]);
  conversation.cut(1, 1600);
  assert.deepEqual(states(reply), ["heard", "heard", "unheard"]);
  assert.equal(conversation.activity, "listening");
});

test("an interruption after the last word changes nothing", () => {
  const conversation = speaking();
  conversation.played(1, 3500, true);
  conversation.cut(1, 3500);
  assert.deepEqual(states(conversation.reply(1)), ["heard", "heard", "heard"]);
});

test("the tail is the text whose place in the audio is not known yet", () => {
  const conversation = after(created("r", 1), said("r", "One  two,three. Four"), words("r", WORDS.slice(0, 1)));
  const reply = conversation.reply(1);
  assert.equal(reply.tail, "two,three. Four");
  conversation.receive(words("r", [{ word: "two,three.", start_sample: 1200, end_sample: 2000 }]));
  assert.equal(reply.tail, "Four");
});

test("a text reply needs no sound", () => {
  const conversation = after(
    { type: "response.created", response: { id: "r", output_modalities: ["text"], relay: { index: 1 } } },
    { type: "response.output_text.delta", response_id: "r", delta: "Hello." },
    done("r", "cancelled"),
  );
  assert.equal(conversation.reply(1).heardText, "Hello.");
  assert.equal(conversation.activity, "listening");
});

test("a failed reply says why; one cancelled before its first word disappears", () => {
  const failed = after(created("r", 1), done("r", "failed", { error: { message: "The brain is gone." } }));
  assert.equal(failed.reply(1).problem, "The brain is gone.");
  assert.ok(failed.reply(1).visible);
  const cancelled = after(created("r", 1), done("r", "cancelled", { reason: "turn_detected" }));
  assert.ok(!cancelled.reply(1).visible);
  assert.equal(cancelled.activity, "listening");
  const incomplete = after(created("r", 1), done("r", "incomplete", { reason: "max_output_tokens" }));
  assert.match(incomplete.reply(1).problem, /max_output_tokens/);
});

test("a lost connection ends what was open; what was said can be told to the next one", () => {
  const conversation = after(started("u"), stopped("u"), transcribed("u", "count"));
  for (const event of [created("r", 1), said("r", "One two three."), words("r")]) conversation.receive(event);
  conversation.audioReceived(1, 0, new Int16Array(3400), 10);
  conversation.played(1, 2000);
  conversation.receive(started("v"));
  conversation.disconnected();
  assert.equal(conversation.activity, "listening");
  assert.deepEqual(conversation.history(), [
    { role: "user", id: "u", text: "count" },
    { role: "assistant", text: "One two" },
  ]);
  assert.equal(conversation.reply(1), undefined);
  assert.equal(conversation.newestIndex, 0);
  conversation.receive(created("s", 1));
  assert.equal(conversation.reply(1).id, "s");
});

test("events about what is unknown change nothing", () => {
  const conversation = after(partial("x", "a", "b"), transcribed("x", "a"), said("x", "a"), words("x"), done("x"), {
    type: "rate_limits.updated",
  });
  assert.deepEqual(conversation.turns, []);
  assert.deepEqual(conversation.played(7, 1), []);
  assert.deepEqual(conversation.cut(7, 1), []);
});

test("the bar's parts add up to what the page measured", () => {
  const conversation = speaking();
  const stages_ms = { endpointing: 500, ears: 60, llm_first: 100, voice_first: 40 };
  conversation.receive({
    type: "relay.metrics",
    response_id: "r",
    metrics: { path: "cascade", speech_end_ms: 2000, stages_ms },
  });
  const reply = conversation.reply(1);
  reply.marks.receivedMs = 102_720;
  conversation.audible(1, 102_765);
  const { stages, onsetMs } = timing(reply.metrics.stages_ms, reply.marks);
  assert.deepEqual(
    stages.map(({ name, ms }) => [name, ms]),
    [
      ["endpointing", 500],
      ["ears", 60],
      ["llm_first", 100],
      ["voice_first", 40],
      ["transport", 20],
      ["playout", 45],
    ],
  );
  assert.equal(onsetMs, 765);
});

test("a typed turn is timed from when it was sent", () => {
  const conversation = new Conversation(() => undefined);
  conversation.typed(500);
  conversation.receive(created("r", 1));
  conversation.receive({
    type: "relay.metrics",
    response_id: "r",
    metrics: { speech_end_ms: null, stages_ms: { llm_first: 80 } },
  });
  conversation.audioReceived(1, 0, new Int16Array(480), 600);
  conversation.audible(1, 640);
  const reply = conversation.reply(1);
  assert.deepEqual(timing(reply.metrics.stages_ms, reply.marks).onsetMs, 140);
});

test("without the page's own marks only the server's stages are shown", () => {
  assert.deepEqual(timing({ ears: 10 }, {}), { stages: [{ name: "ears", ms: 10 }], onsetMs: 10 });
});

test("a whole session of the server", () => {
  const lines = JSON.parse(readFileSync(new URL("../vectors/server_events.json", import.meta.url)));
  const conversation = after(...lines.map(({ event }) => event));
  const seen = conversation.turns.map((turn) => [
    turn.kind,
    turn.state,
    turn.kind === "user" ? turn.text : turn.transcript,
  ]);
  assert.deepEqual(seen, [
    ["user", "failed", "what time is it"], // the vectors end with a failed transcription of this very turn
    ["reply", "done", "It is noon."],
    ["user", "failed", ""], // its audio was cleared
    ["reply", "done", "Grüezi"],
    ["reply", "done", ""],
  ]);
  assert.equal(conversation.turns[1].tail, "noon.");
  assert.match(conversation.turns[4].problem, /voice failed/);
  assert.equal(conversation.activity, "listening");
});

const drafted = (id, draft) => ({ type: "relay.draft", response_id: id, draft });

test("a committed draft is the beginning of the reply, and the rest joins where its sound ends", () => {
  const conversation = after(created("r", 1), drafted("r", { prefix: "One two", probability: 0.9 }));
  const reply = conversation.reply(1);
  assert.deepEqual(reply.draft, { prefix: "One two", probability: 0.9, committed: null, reason: null });
  assert.ok(!reply.joined);
  conversation.receive(drafted("r", { committed: true })); // what was known stays
  assert.deepEqual(reply.draft, { prefix: "One two", probability: 0.9, committed: true, reason: null });
  assert.equal(reply.slowText, "");
  assert.deepEqual([reply.drafted, reply.joinedAt], [0, 0]);
  conversation.receive(said("r", "One two three."));
  assert.equal(reply.slowText, "three.");
  conversation.receive(words("r", WORDS.slice(0, 1)));
  assert.deepEqual([reply.drafted, reply.joinedAt], [1, 1000]);
  conversation.receive(words("r", WORDS.slice(1)));
  assert.deepEqual([reply.drafted, reply.joinedAt], [2, 2000]);
  assert.deepEqual(reply.position, { played: 0, joined: 2000, cut: false });
});

test("after a fallback all words are the slow path's", () => {
  const conversation = after(created("r", 1), drafted("r", { prefix: "No", probability: 0.2, committed: false }));
  conversation.receive(said("r", "One two three."));
  conversation.receive(words("r"));
  const reply = conversation.reply(1);
  assert.equal(reply.slowText, "One two three.");
  assert.equal(reply.joinedAt, 0);
});

test("a draft of which nothing is known is none; nor is one that nobody asked for", () => {
  const conversation = after(created("r", 1), drafted("r", { probability: 0.2 }), drafted("r", null));
  assert.equal(conversation.reply(1).draft, null);
  conversation.receive(drafted("r", { prefix: null, probability: null, committed: false, reason: "unasked" }));
  assert.equal(conversation.reply(1).draft, null);
});

for (const reason of ["late", "empty", "failed", "interrupted"])
  test(`a draft that came to nothing says why: ${reason}`, () => {
    const told = { prefix: null, probability: null, committed: false, reason };
    const conversation = after(created("r", 1), drafted("r", told), said("r", "One two three."), words("r"));
    const reply = conversation.reply(1);
    assert.deepEqual(reply.draft, told);
    assert.equal(reply.slowText, "One two three.");
    assert.deepEqual([reply.joined, reply.drafted, reply.joinedAt], [false, 0, 0]);
  });

test("the first words of both paths are timed from the end of the user's words", () => {
  const conversation = after(created("r", 1));
  const reply = conversation.reply(1);
  const come = (event, ms) => conversation.receive(event, ms);
  come(drafted("r", { prefix: "One two", probability: 0.9, committed: true, reason: null }), 102_300.4);
  come(said("r", "One two "), 102_310);
  assert.deepEqual(reply.firstWordsMs, { fast: null, slow: null }); // since when is not known yet
  come({ type: "relay.metrics", response_id: "r", metrics: { path: "relay", speech_end_ms: 2000, stages_ms: {} } });
  assert.deepEqual(reply.firstWordsMs, { fast: 300, slow: null });
  come(said("r", "three."), 102_900);
  come(said("r", " Four."), 103_400);
  assert.deepEqual(reply.firstWordsMs, { fast: 300, slow: 900 });
  const [kept] = JSON.parse(JSON.stringify(conversation.turns));
  assert.deepEqual(kept.first_words_ms, { fast: 300, slow: 900 });
  const [restored] = after().restore([kept]);
  assert.deepEqual(restored.firstWordsMs, { fast: 300, slow: 900 });
  assert.deepEqual(restored.draft, reply.draft);
});

test("a draft that was too late came at no time; the slow path did", () => {
  const conversation = after(created("r", 1));
  conversation.receive(drafted("r", { prefix: null, committed: false, reason: "late" }), 102_200);
  conversation.receive(said("r", "One two three."), 102_250);
  conversation.receive({ type: "relay.metrics", response_id: "r", metrics: { speech_end_ms: 2000, stages_ms: {} } });
  assert.deepEqual(conversation.reply(1).firstWordsMs, { fast: null, slow: 250 });
});

test("a draft that is the whole reply leaves nothing to the slow path", () => {
  const conversation = after(created("r", 1), drafted("r", { prefix: "One two three.", committed: true }));
  conversation.receive(said("r", "One two three."), 5);
  conversation.receive(words("r"));
  const reply = conversation.reply(1);
  assert.deepEqual([reply.drafted, reply.slowText, reply.marks.slowMs], [3, "", undefined]);
});

test("a reply without sound has no time to its first sound", () => {
  const conversation = after(created("r", 1));
  const metrics = { path: "cascade", onset_ms: null, speech_end_ms: 100, stages_ms: { ears: 30 } };
  conversation.receive({ type: "relay.metrics", response_id: "r", metrics });
  assert.equal(conversation.reply(1).timing, null);
  assert.deepEqual(conversation.onsets, []);
});

test("a question that was not answered before the connection was lost is owed an answer", () => {
  const conversation = after(started("u"), stopped("u"), transcribed("u", "count"));
  assert.ok(conversation.owed);
  conversation.receive(created("r", 1));
  assert.ok(conversation.owed);
  conversation.receive(said("r", "One two three."));
  conversation.receive(words("r"));
  conversation.audioReceived(1, 0, new Int16Array(3400), 10);
  conversation.played(1, 300);
  conversation.disconnected();
  assert.ok(conversation.owed); // nothing of it was heard
  assert.ok(!after().owed);
});

test("the text of a spoken answer alone is no answer", () => {
  const conversation = after(started("u"), transcribed("u", "count"), created("r", 1), said("r", "One"));
  conversation.disconnected();
  assert.ok(conversation.owed);
  assert.deepEqual(
    conversation.history().map(({ role }) => role),
    ["user"],
  );
});

test("an answer of which something was heard is not owed", () => {
  const conversation = after(started("u"), stopped("u"), transcribed("u", "count"));
  for (const event of [created("r", 1), said("r", "One two three."), words("r")]) conversation.receive(event);
  conversation.audioReceived(1, 0, new Int16Array(3400), 10);
  conversation.played(1, 1300);
  conversation.disconnected();
  assert.ok(!conversation.owed);
});

test("the conversation as data says what was heard, when and how", () => {
  const conversation = after(started("u"), stopped("u"), transcribed("u", "count"));
  for (const event of [created("r", 1), said("r", "One two three."), words("r")]) conversation.receive(event);
  conversation.receive({
    type: "relay.metrics",
    response_id: "r",
    metrics: { path: "cascade", speech_end_ms: 100, stages_ms: { ears: 30, llm_first: 20 } },
  });
  conversation.audioReceived(1, 0, new Int16Array(3400), 100_170);
  conversation.audible(1, 100_190);
  conversation.starved(1);
  conversation.cut(1, 2000);
  conversation.receive(done("r", "cancelled"));
  const [user, reply] = JSON.parse(JSON.stringify(conversation.turns));
  assert.deepEqual(user, { role: "user", id: "u", state: "done", text: "count" });
  assert.deepEqual(reply, {
    role: "assistant",
    id: "r",
    state: "done",
    text: "One two three.",
    heard_text: "One two",
    interrupted: true,
    problem: null,
    played_samples: 2000,
    audio_samples: 3400,
    starved: 1,
    words: [
      { word: "One", start_sample: 0, end_sample: 1000, heard: true },
      { word: "two", start_sample: 1200, end_sample: 2000, heard: true },
      { word: "three.", start_sample: 2400, end_sample: 3400, heard: false },
    ],
    path: "cascade",
    onset_ms: 90,
    stages_ms: { ears: 30, llm_first: 20, transport: 20, playout: 20 },
    draft: null,
  });
  assert.deepEqual(conversation.onsets, [90]);
});

test("a conversation that was kept comes back as it was, without its sound", () => {
  const conversation = after(started("u"), transcribed("u", "count"), started("v"));
  for (const event of [created("r", 1), said("r", "One two three."), words("r")]) conversation.receive(event);
  conversation.receive(drafted("r", { prefix: "One", probability: 0.9, committed: true }));
  const metrics = { path: "relay", stages_ms: { ears: 30, voice_first: 20 } };
  conversation.receive({ type: "relay.metrics", response_id: "r", metrics });
  conversation.audioReceived(1, 0, new Int16Array(3400), 10);
  conversation.played(1, 1100); // the page is left in mid-reply
  const kept = JSON.parse(JSON.stringify(conversation.turns));
  const again = new Conversation(() => undefined);
  const [user, unheard, reply] = again.restore(kept);
  assert.deepEqual([user.text, user.state, unheard.state], ["count", "done", "failed"]);
  assert.deepEqual(states(reply), ["heard", "unheard", "unheard"]);
  assert.equal(reply.timing.onsetMs, 50);
  assert.equal(reply.slowText, "two three.");
  assert.equal(again.activity, "listening");
  assert.ok(!again.answering);
  assert.deepEqual(again.history(), [
    { role: "user", id: "u", text: "count" },
    { role: "assistant", text: "One" },
  ]);
  assert.deepEqual(JSON.parse(JSON.stringify(again.turns))[2], {
    ...kept[2],
    state: "done",
    interrupted: true,
    audio_samples: 0,
  });
});
