// The page: carries events between the connection, the microphone, the loudspeaker, the conversation and the view.

import { InputClock, Microphone, Speaker, loadWorklets, microphoneProblem, soundAllowed } from "./audio.js";
import { Connection } from "./connection.js";
import { Conversation, timing } from "./conversation.js";
import * as protocol from "./protocol.js";
import { Strip, View } from "./view.js";

const TICK_MS = 40;
const REPORT_EVERY_S = 0.1;
const START_MS = 500; // a context that may run does so by then
const HOLD_MS = 300; // a key held longer than this was held to talk, not pressed to toggle
const INSECURE =
  "Browsers give the microphone and sound only to pages from https or from localhost, and this page is neither. " +
  "Typing works. " +
  "To talk, open the page on the server’s own machine, or start the server with --tls-cert and --tls-key.";

const byId = (id) => document.getElementById(id);
const view = new View();
const strip = new Strip();
const conversation = new Conversation((inputMs) => inputClock.heardAtMs(inputMs));

let target = null; // where to connect
let connection = null;
let phase = "idle"; // idle, connecting, open or reconnecting
let context = null;
let speaker = null;
let microphone = null;
let inputClock = new InputClock();
let waitingText = ""; // typed before the connection was there
let askWhenDone = false; // a reply is asked for as soon as the cancelled one has ended
let reported = { index: 0, frame: 0 };

const show = (turns) => turns.forEach((turn) => view.show(turn));

// ------------------------------------------------------------------------------------------------ connection and state

const LABELS = {
  idle: "Not connected",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking",
};

function refresh() {
  const state = phase === "open" ? conversation.activity : phase;
  const deaf = microphone === null ? "Ready" : microphone.muted ? "Muted" : null;
  view.setState(state, state === "listening" && deaf ? deaf : LABELS[state]);
  view.setControls({
    connected: phase !== "idle",
    microphone: microphone === null ? "none" : microphone.muted ? "muted" : "open",
  });
}

function setPhase(next, announcement) {
  phase = next;
  refresh();
  view.announce(announcement);
}

/** Connects; with `talk`, opens the microphone as soon as the server has answered. */
function start({ talk }) {
  if (phase !== "idle") return;
  for (const key of ["server", "microphone", "sound"]) view.clear(key);
  setPhase("connecting", "Connecting");
  if (soundAllowed())
    context = new AudioContext({ latencyHint: "interactive" }); // now: some browsers want a click for it
  else view.notice("sound", INSECURE);
  try {
    connection = new Connection(target.url, new URLSearchParams(location.hash.slice(1)).get("key"));
  } catch (error) {
    stopped(`The connection cannot be opened: ${error.message}`);
    return;
  }
  connection.onopen = () => opened(talk);
  connection.onmessage = (data) =>
    typeof data === "string" ? received(protocol.parseEvent(data)) : receivedAudio(data);
  connection.onretry = () => lost("reconnecting", "Connection lost. Reconnecting.");
  connection.onclosed = (problem) => stopped(problem, { label: "Try again", run: () => start({ talk }) });
}

async function opened(talk) {
  if (context && !speaker && !(await openSpeaker())) return;
  connection.send(protocol.sessionUpdate({ sound: speaker !== null }));
  for (const { role, id, text } of conversation.history()) connection.send(protocol.messageItem(role, text, id));
  inputClock = new InputClock();
  speaker?.restart();
  reported = { index: 0, frame: 0 };
  askWhenDone = false;
  setPhase("open", "Connected");
  if (talk && speaker && !microphone) openMicrophone();
  if (waitingText) ask(waitingText);
  waitingText = "";
}

/** The connection is over for good. */
function stopped(problem, action = null) {
  connection = null;
  lost("idle", "Not connected");
  closeSound();
  if (problem) view.notice("server", problem, action);
}

function lost(next, announcement) {
  speaker?.flush(conversation.newestIndex);
  show(conversation.disconnected());
  setPhase(next, announcement);
}

function received(event) {
  if (!event) return;
  show(conversation.receive(event));
  switch (event.type) {
    case "input_audio_buffer.speech_started":
      hush();
      break;
    case "relay.metrics":
      showTiming(conversation.turn(event.response_id));
      break;
    case "response.output_audio.done":
      speaker?.end(conversation.turn(event.response_id)?.index);
      break;
    case "response.done":
      ended(event.response);
      break;
    case "error":
      view.notice("error", event.error.message);
      break;
    default:
  }
  refresh();
}

function receivedAudio(data) {
  const frame = protocol.parseAudio(data);
  if (!frame || !speaker) return;
  show(conversation.audioReceived(frame.index, performance.now()));
  speaker.play(frame.index, frame.first, frame.pcm);
}

function ended(response) {
  const reply = conversation.turn(response.id);
  if (!reply) return;
  speaker?.end(reply.index);
  if (!speaker && reply.transcript) view.announce(`Relay: ${reply.transcript}`);
  if (askWhenDone) connection.send(protocol.responseCreate());
  askWhenDone = false;
}

// --------------------------------------------------------------------------------------------------------------- sound

/** Makes the loudspeaker ready; says whether the connection still wants it. */
async function openSpeaker() {
  const its = { context, connection };
  const current = () => its.context === context && its.connection === connection;
  try {
    await loadWorklets(context);
  } catch (error) {
    if (current()) {
      connection.close();
      view.notice("sound", `Sound could not be started: ${error.message}`);
    }
    return false;
  }
  if (!current() || speaker || !connection.open) return false;
  speaker = new Speaker(context);
  speaker.onevent = playbackEvent;
  context.onstatechange = soundStateChanged;
  setTimeout(soundStateChanged, START_MS);
  return true;
}

function closeSound() {
  microphone?.close();
  speaker?.close();
  if (context) {
    context.onstatechange = null;
    context.close();
  }
  microphone = speaker = context = null;
  view.clear("suspended");
  refresh();
}

function soundStateChanged() {
  if (!context || context.state === "running") view.clear("suspended");
  else
    view.notice("suspended", "The browser holds sound back until you click or press a key.", {
      label: "Turn sound on",
      run: wakeSound,
    });
}

const wakeSound = () => context?.state !== "running" && context?.resume();

async function openMicrophone() {
  view.clear("microphone");
  const its = context;
  try {
    const opened = await Microphone.open(its);
    if (its !== context) return opened.close(); // ended meanwhile
    microphone = opened;
  } catch (error) {
    if (its === context)
      view.notice("microphone", microphoneProblem(error), { label: "Try again", run: openMicrophone });
    return;
  }
  microphone.onframe = (pcm, level) => {
    strip.user(level);
    if (phase !== "open") return;
    connection.send(pcm);
    inputClock.sent(performance.now());
  };
  microphone.onended = () => {
    microphone.close();
    microphone = null;
    view.notice("microphone", "The microphone was disconnected.", { label: "Try again", run: openMicrophone });
    refresh();
  };
  refresh();
}

/** Stops what is being said, at once: the user has the floor. */
function hush() {
  speaker?.flush(conversation.newestIndex);
}

function playbackEvent(event) {
  const { type, index, played, frame, rms } = event;
  if (type === "onset") {
    speaker.measureLatency();
    show(conversation.audible(index, performance.now() + speaker.heardInMs(frame)));
    showTiming(conversation.reply(index));
    return;
  }
  strip.reply(rms);
  report(event);
  if (type === "flushed") show(conversation.cut(index, played));
  if (type === "finished") setTimeout(() => heardToTheEnd(index, played), speaker.heardInMs(frame));
}

function heardToTheEnd(index, played) {
  show(conversation.played(index, played, true));
  refresh();
}

/** Tells the server what was played: every 100 ms, and at once when playing stops. */
function report({ type, index, played, frame }) {
  const reply = conversation.reply(index);
  const due =
    type !== "played" || index !== reported.index || frame - reported.frame >= REPORT_EVERY_S * context.sampleRate;
  if (!reply || !due) return;
  reported = { index, frame };
  connection?.send(protocol.playbackReport(reply.id, played));
}

function showTiming(reply) {
  if (reply?.metrics?.stages_ms) view.showTiming(reply, timing(reply.metrics.stages_ms, reply.marks));
}

let followed = { index: 0, played: 0 };

/** Follows the playback clock: words are lit when they are heard, not when they arrive. */
function tick() {
  if (context) strip.draw();
  const heard = speaker?.heard();
  if (!heard || (heard.index === followed.index && heard.played === followed.played)) return;
  followed = heard;
  show(conversation.played(heard.index, heard.played));
  refresh();
}

// ------------------------------------------------------------------------------------------------------------ controls

/** Sends what was typed; it interrupts like speech. The next reply can be asked for only when the last has ended. */
function ask(text) {
  hush();
  if (conversation.answering) connection.send(protocol.outputClear());
  connection.send(protocol.messageItem("user", text));
  conversation.typed(performance.now());
  askWhenDone = conversation.replying;
  if (!askWhenDone) connection.send(protocol.responseCreate());
}

function setMuted(muted) {
  microphone.muted = muted;
  view.announce(muted ? "Microphone muted" : "Microphone open");
  refresh();
}

function pressTalk() {
  if (phase === "idle") start({ talk: true });
  else if (!microphone) soundAllowed() ? openMicrophone() : view.notice("sound", INSECURE);
  else setMuted(!microphone.muted);
}

byId("talk").onclick = pressTalk;
byId("end").onclick = () => connection?.close();
byId("typed").onsubmit = (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text) return;
  byId("text").value = "";
  if (phase === "open") return ask(text);
  waitingText = `${waitingText}\n${text}`.trim();
  start({ talk: false });
};

let pressed = null; // the space bar: since when, and whether the microphone was muted before

/** The space bar is the microphone's, unless something else that uses it has the focus. */
const takesSpace = ({ code, target: focus }) =>
  code === "Space" && microphone !== null && (focus === byId("talk") || !focus.closest("button, input, a, summary"));

document.addEventListener("keydown", (event) => {
  wakeSound();
  if (!takesSpace(event)) return;
  event.preventDefault();
  if (event.repeat || pressed) return;
  pressed = { atMs: event.timeStamp, muted: microphone.muted };
  if (microphone.muted) setMuted(false);
});

document.addEventListener("keyup", (event) => {
  if (!pressed || event.code !== "Space") return;
  event.preventDefault(); // a focused button would be clicked by the release
  release(event.timeStamp - pressed.atMs >= HOLD_MS);
});

// Whoever leaves the window with the key held will release it elsewhere: the microphone must not stay open.
window.addEventListener("blur", () => pressed && release(true));

function release(held) {
  const { muted } = pressed;
  pressed = null;
  if (microphone && (held ? muted : !muted)) setMuted(true);
}

document.addEventListener("pointerdown", wakeSound);
setInterval(tick, TICK_MS);

try {
  target = protocol.endpoint(location.href);
  if (target.foreign)
    view.notice("foreign", `This page will connect to ${new URL(target.url).host}, not to the server it came from.`);
  // Another server is never connected to without a click: a link must not carry somebody's voice away.
  else if (new URLSearchParams(location.search).has("autostart")) start({ talk: true });
} catch (error) {
  byId("talk").disabled = byId("text").disabled = true;
  view.notice("server", `The address in ?url= cannot be used: ${error.message}`);
}
refresh();
