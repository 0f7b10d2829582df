// When a lost connection is tried again, and when it is given up. The sockets are the test's own, and so is the time.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Connection } from "../../web/connection.js";

let sockets;
let nowMs;
let health;

globalThis.location = { host: "localhost:8000" };
globalThis.fetch = async () => health();
mock.method(performance, "now", () => nowMs);
mock.method(Math, "random", () => 0.5);

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout"] });
  sockets = [];
  nowMs = 0;
  health = () => ({ ok: true });
  globalThis.WebSocket = class {
    static OPEN = 1;
    constructor(url, protocols) {
      Object.assign(this, { url, protocols, readyState: 0, sent: [], closedWith: null, bufferedAmount: 0 });
      sockets.push(this);
    }
    opens() {
      this.readyState = 1;
      this.onopen();
    }
    ends(code = 1006, reason = "") {
      this.readyState = 3;
      return this.onclose({ code, reason });
    }
    send(message) {
      this.sent.push(message);
    }
    close(code = 1005) {
      this.closedWith = code;
    }
  };
});

/** A connection, and what it called back. */
function connect(url = "ws://localhost:8000/v1/realtime") {
  const connection = new Connection(url, null);
  const calls = [];
  connection.onopen = () => calls.push("open");
  connection.onretry = (delayMs) => calls.push(delayMs);
  connection.onslow = (slow) => calls.push({ slow });
  connection.onclosed = (problem) => calls.push({ problem });
  return { connection, calls };
}

test("a loss is tried again, later and later, and at last given up", () => {
  const { calls } = connect();
  sockets[0].opens();
  for (let attempt = 0; attempt < 9; attempt += 1) {
    sockets.at(-1).ends();
    nowMs += 60_000; // waiting long does not count as having been connected
    mock.timers.tick(10_000);
  }
  assert.deepEqual(calls.slice(0, 9), ["open", 500, 1000, 2000, 4000, 8000, 8000, 8000, 8000]);
  assert.match(calls[9].problem, /lost/);
  assert.equal(sockets.length, 9);
});

test("after a connection that lasted, the waiting begins anew; after one that did not, it goes on", () => {
  const { calls } = connect();
  sockets[0].opens();
  sockets[0].ends();
  mock.timers.tick(500);
  sockets[1].opens();
  nowMs += 20_000;
  sockets[1].ends();
  mock.timers.tick(500);
  sockets[2].opens();
  nowMs += 100;
  sockets[2].ends();
  assert.deepEqual(calls, ["open", 500, "open", 500, "open", 1000]);
});

test("what would end the same way is not tried again", () => {
  const { calls } = connect();
  sockets[0].opens();
  sockets[0].ends(3000, "invalid_api_key: this server needs an API key");
  assert.deepEqual(calls, ["open", { problem: "The server ended the connection: this server needs an API key" }]);
});

test("a first connection that fails says why", async () => {
  const refused = connect();
  await sockets[0].ends();
  assert.match(refused.calls[0].problem, /refused the connection/);

  health = () => Promise.reject(new TypeError("nobody there"));
  const absent = connect();
  await sockets[1].ends();
  assert.match(absent.calls[0].problem, /No server answers at localhost:8000/);

  const foreign = connect("ws://elsewhere.example/v1/realtime");
  await sockets[2].ends();
  assert.match(foreign.calls[0].problem, /No connection to elsewhere.example/);
});

test("closing ends it once, whatever is under way", async () => {
  const { connection, calls } = connect();
  const ended = sockets[0].ends();
  connection.close(); // while the page looks for the reason
  await ended;
  assert.deepEqual(calls, [{ problem: null }]);

  const waiting = connect();
  sockets[1].opens();
  sockets[1].ends();
  waiting.connection.close(); // while it waits for the next attempt
  mock.timers.tick(60_000);
  assert.deepEqual(waiting.calls, ["open", 500, { problem: null }]);
  assert.equal(sockets.length, 2);
});

test("events are sent as text, audio as bytes, and nothing while there is no connection", () => {
  const { connection } = connect();
  connection.send({ type: "early" });
  assert.ok(!connection.sendAudio(new Int16Array(480)));
  sockets[0].opens();
  const pcm = new Int16Array(480);
  connection.send({ type: "response.create" });
  assert.ok(connection.sendAudio(pcm));
  assert.deepEqual(sockets[0].sent, ['{"type":"response.create"}', pcm]);
  connection.close();
  assert.equal(sockets[0].closedWith, 1000);
});

test("audio that the network cannot carry is dropped, and the page is told until it can again", () => {
  const { connection, calls } = connect();
  sockets[0].opens();
  sockets[0].bufferedAmount = 48_001;
  assert.ok(!connection.sendAudio(new Int16Array(480)));
  connection.send({ type: "response.create" }); // events are never dropped
  nowMs += 9000;
  assert.ok(!connection.sendAudio(new Int16Array(480)));
  sockets[0].bufferedAmount = 0;
  assert.ok(connection.sendAudio(new Int16Array(480)));
  assert.ok(connection.sendAudio(new Int16Array(480)));
  assert.deepEqual(calls, ["open", { slow: true }, { slow: true }, { slow: false }]);
  assert.equal(sockets[0].sent.length, 3);
});

test("a socket that takes nothing any more is dead, and replaced", () => {
  const { connection, calls } = connect();
  sockets[0].opens();
  sockets[0].bufferedAmount = 50_000;
  connection.sendAudio(new Int16Array(480));
  nowMs += 10_001;
  connection.sendAudio(new Int16Array(480));
  assert.deepEqual(calls, ["open", { slow: true }, { slow: false }, 500]);
  assert.ok(!connection.open);
  mock.timers.tick(500);
  assert.equal(sockets.length, 2);
});

test("a handshake that is not answered is given up", async () => {
  const { calls } = connect();
  sockets[0].opens();
  sockets[0].ends();
  mock.timers.tick(500);
  mock.timers.tick(10_000); // the second socket says nothing at all
  assert.deepEqual(calls, ["open", 500, 1000]);
  assert.notEqual(sockets[1].closedWith, null);
});

test("who does not want to wait can try at once, and nothing happens twice", () => {
  const { connection, calls } = connect();
  sockets[0].opens();
  connection.retryNow(); // nothing to retry
  sockets[0].ends();
  connection.retryNow();
  connection.retryNow();
  assert.equal(sockets.length, 2);
  sockets[1].opens();
  mock.timers.tick(60_000);
  assert.equal(sockets.length, 2);
  assert.deepEqual(calls, ["open", 500, "open"]);
});
