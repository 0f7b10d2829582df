// The wire as the page speaks it, over the vectors that the server's own tests use.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { closeProblem, endpoint, parseAudio, parseEvent, sessionUpdate, subprotocols } from "../../web/protocol.js";
import { DEFAULTS } from "../../web/settings.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../vectors/${name}.json`, import.meta.url)));
const bytes = (...values) => Uint8Array.from(values).buffer;

test("where to connect", () => {
  const at = (href) => endpoint(href);
  assert.deepEqual(at("http://localhost:8000/"), { url: "ws://localhost:8000/v1/realtime", foreign: false });
  assert.deepEqual(at("https://voice.example/?autostart#key=abc"), {
    url: "wss://voice.example/v1/realtime",
    foreign: false,
  });
  assert.deepEqual(at("http://localhost:8000/?url=ws://10.0.0.2:9000"), {
    url: "ws://10.0.0.2:9000/v1/realtime",
    foreign: true,
  });
  assert.deepEqual(at("http://localhost:8000/?url=https://a.example/b%3Fmodel=c"), {
    url: "wss://a.example/b?model=c",
    foreign: true,
  });
  assert.deepEqual(at("https://a.example/?url=b.example:9000"), {
    url: "wss://b.example:9000/v1/realtime",
    foreign: true,
  });
  assert.deepEqual(at("http://localhost:8000/?url=ws://localhost:8000/"), {
    url: "ws://localhost:8000/v1/realtime",
    foreign: false,
  });
  assert.throws(() => at("http://localhost:8000/?url=javascript://x"), TypeError);
  assert.throws(() => at("http://localhost:8000/?url=http://"), TypeError);
});

test("the session asks for the extra events, and for text where there is no sound", () => {
  const { session } = sessionUpdate({ sound: true, settings: DEFAULTS });
  const asked = { playback: true, partials: true, words: true, metrics: true, draft: true, duck: true };
  assert.deepEqual(session.relay, asked);
  assert.deepEqual(session.output_modalities, ["audio"]);
  assert.equal(session.audio.input.turn_detection, undefined, "the server's choice");
  const served = { type: "semantic_vad", eagerness: "auto" };
  const again = sessionUpdate({ sound: true, settings: DEFAULTS, served }).session;
  assert.deepEqual(again.audio.input.turn_detection, served);
  assert.deepEqual(sessionUpdate({ sound: false, settings: DEFAULTS }).session.output_modalities, ["text"]);
});

test("an API key travels as a subprotocol", () => {
  assert.deepEqual(subprotocols(null), ["relay.v1"]);
  assert.deepEqual(subprotocols("k"), ["relay.v1", "openai-insecure-api-key.k"]);
});

for (const { name, hex, frame } of vectors("binary_frames")) {
  test(`binary frame: ${name}`, () => {
    const parsed = parseAudio(Uint8Array.from(Buffer.from(hex, "hex")).buffer);
    if (frame?.form !== "pcm16") {
      assert.equal(parsed, null); // the page asks for pcm16 and skips what it did not ask for
      return;
    }
    assert.equal(parsed.index, frame.response_index);
    assert.equal(parsed.first, Number(frame.first_sample));
    const { buffer, byteOffset, byteLength } = parsed.pcm;
    assert.equal(Buffer.from(buffer, byteOffset, byteLength).toString("hex"), frame.data);
  });
}

test("what is no whole frame is skipped", () => {
  for (let length = 0; length < 16; length += 1) assert.equal(parseAudio(new ArrayBuffer(length)), null);
  assert.equal(parseAudio(bytes(1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)), null);
});

test("the server's events are read as they were meant", () => {
  for (const { line, event } of vectors("server_events")) assert.deepEqual(parseEvent(line), event);
});

test("an event is an object with a type", () => {
  assert.deepEqual(parseEvent('{"type":"error"}'), { type: "error" });
  for (const text of ["", "{", "null", "1", '"type"', "[]", '{"type":1}', "{}"]) assert.equal(parseEvent(text), null);
});

test("why a connection ended, and whether to try again", () => {
  assert.deepEqual(closeProblem(1006, ""), { problem: "The connection to the server was lost (1006).", final: false });
  assert.deepEqual(closeProblem(1013, "too_many_sessions: all 4 sessions are in use"), {
    problem: "The server ended the connection: all 4 sessions are in use",
    final: false,
  });
  assert.ok(closeProblem(3000, "invalid_api_key: no").final);
});
