// Settings in the page's address, and what they ask of the server.

import assert from "node:assert/strict";
import { test } from "node:test";

import { sessionUpdate } from "../../web/protocol.js";
import { DEFAULTS, readSettings, turnDetection, withSettings } from "../../web/settings.js";

const read = (query) => readSettings(new URLSearchParams(query));

test("an address without settings gives the defaults, and the other way round", () => {
  assert.deepEqual(read(""), DEFAULTS);
  assert.equal(
    withSettings("http://localhost:8000/?voice=x&autostart#key=k", DEFAULTS),
    "http://localhost:8000/?autostart=#key=k",
  );
});

test("what was set comes back from the address", () => {
  const settings = {
    instructions: "Be brief & kind.\nSay “Grüezi”.",
    voice: "anna",
    speed: 1.25,
    turns: "server_vad",
    silence_ms: 300,
    eagerness: "high",
    path: "cascade",
  };
  const href = withSettings("http://localhost:8000/?autostart", settings);
  assert.deepEqual(read(new URL(href).search), settings);
  assert.ok(new URL(href).searchParams.has("autostart"));
});

test("what cannot be used keeps its default", () => {
  const odd = "speed=9&turns=never&silence_ms=&eagerness=wild&voice=%20%20&path=shortest";
  assert.deepEqual(read(odd), DEFAULTS);
  assert.deepEqual(read("speed=NaN&silence_ms=1e9"), DEFAULTS);
  assert.equal(read(`instructions=${"x".repeat(9999)}`).instructions.length, 4000);
});

test("turn detection as the server is told", () => {
  const of = (settings) => turnDetection({ ...DEFAULTS, ...settings });
  assert.equal(of({}), undefined);
  assert.deepEqual(turnDetection(DEFAULTS, { type: "semantic_vad" }), { type: "semantic_vad" });
  assert.deepEqual(of({ turns: "server_vad" }), { type: "server_vad" });
  assert.deepEqual(of({ silence_ms: 300 }), { type: "server_vad", silence_duration_ms: 300 });
  assert.deepEqual(of({ turns: "server_vad", silence_ms: 300 }), of({ silence_ms: 300 }));
  assert.deepEqual(of({ turns: "semantic_vad", eagerness: "low" }), { type: "semantic_vad", eagerness: "low" });
  assert.equal(of({ turns: "manual" }), null);
});

test("a path is asked for only where the server offers it, and given back to the server by name", () => {
  const relay = (path, paths) => {
    const settings = { ...DEFAULTS, path };
    return JSON.parse(JSON.stringify(sessionUpdate({ sound: true, settings, paths }))).session.relay;
  };
  for (const paths of [undefined, [], ["cascade"]]) assert.ok(!("path" in relay("relay", paths)));
  assert.equal(relay("cascade", ["relay", "cascade", "draft"]).path, "cascade");
  assert.equal(relay("", ["relay", "cascade", "draft"]).path, null);
  assert.equal(relay("relay", ["draft", "cascade"]).path, null);
});

test("a session follows the settings; what was left open is the server's", () => {
  const { session } = sessionUpdate({ sound: true, settings: { ...DEFAULTS, voice: "anna", speed: 0.5 } });
  assert.equal(session.instructions, null);
  assert.equal(session.audio.output.voice, "anna");
  assert.equal(session.audio.output.speed, 0.5);
});
