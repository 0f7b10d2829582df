// The page: what buttons, keys and the address do, and who is told when something changes.

import { Awake } from "./awake.js";
import { Dialogue } from "./dialogue.js";
import { Panel } from "./panel.js";
import { endpoint } from "./protocol.js";
import { readSettings, withSettings } from "./settings.js";
import { Sound } from "./sound.js";
import { Strip } from "./strip.js";
import { View } from "./view.js";

const TICK_MS = 40;
const HOLD_MS = 300; // a key held longer than this was held to talk, not pressed to toggle

const LABELS = {
  idle: "Not connected",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking",
};

const byId = (id) => document.getElementById(id);
const view = new View();
const strip = new Strip();
const sound = new Sound();
const settings = readSettings(new URLSearchParams(location.search));
const panel = new Panel(sound, settings);
const dialogue = new Dialogue(view, sound, settings);
let target = null; // where to connect
const awake = new Awake();

function refresh() {
  const { activity, phase, manual } = dialogue;
  const microphone = !sound.microphone ? "none" : sound.muted ? "muted" : "open";
  const deaf = { none: "Ready", muted: manual ? "Ready" : "Muted" }[microphone];
  view.setState(activity, activity === "listening" && deaf ? deaf : LABELS[activity]);
  view.setControls({ connected: phase !== "idle", microphone, manual, answering: dialogue.conversation.answering });
  awake.wanted = phase !== "idle";
}

dialogue.onchange = refresh;
dialogue.onpaths = (paths) => panel.offer(paths);
sound.onchange = () => {
  refresh();
  panel.refresh();
};
sound.onnotice = (key, text, action) => (text === null ? view.clear(key) : view.notice(key, text, action));
sound.onframe = (pcm, level, frame) => {
  strip.user(level);
  if (!panel.take(pcm, frame)) dialogue.heard(pcm, frame);
};
sound.onplayback = (event) => {
  if (event.type !== "onset") strip.reply(event.rms);
  dialogue.playback(event);
};
panel.onsettings = (changed) => {
  history.replaceState(null, "", withSettings(location.href, changed));
  dialogue.settings = changed;
};
panel.onclosed = () => {
  if (dialogue.phase === "idle") sound.stop();
};

// ------------------------------------------------------------------------------------------------------------ controls

function start(talk) {
  dialogue.start(target.url, new URLSearchParams(location.hash.slice(1)).get("key"), { talk });
}

function setMuted(muted) {
  dialogue.setMuted(muted);
  view.announce(muted ? "Microphone muted" : "Microphone open");
}

byId("talk").onclick = () => {
  if (dialogue.phase === "idle") start(true);
  else if (sound.microphone) setMuted(!sound.muted);
  else if (sound.allowed()) sound.openMicrophone();
};
byId("end").onclick = () => dialogue.end();
byId("stop").onclick = () => dialogue.stopReply();
byId("typed").onsubmit = (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  byId("text").value = "";
  if (text && !dialogue.ask(text)) start(false);
};

// ----------------------------------------------------------------------------------------------------------- downloads

function save(name, parts, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

const fileName = (kind) => `relay-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.${kind}`;

byId("save-audio").onclick = () => save(fileName("wav"), dialogue.recording.wav(), "audio/wav");
byId("save-text").onclick = () => {
  const { recording, conversation } = dialogue;
  const audio = { sample_rate_hz: 24000, channels: ["microphone", "relay"], seconds: recording.seconds };
  const kept = { saved: new Date().toISOString(), url: location.origin, audio, turns: conversation.turns };
  save(fileName("json"), [JSON.stringify(kept, null, 2)], "application/json");
};
byId("copy-link").hidden = !navigator.clipboard;
byId("copy-link").onclick = async () => {
  // Without what follows the #: that may be an API key.
  await navigator.clipboard.writeText(location.origin + location.pathname + location.search);
  byId("copy-link").textContent = "Copied";
};

// ------------------------------------------------------------------------------------------------------------- history

const KEPT = "relay.conversation"; // in the tab's own storage: a reload, or a phone short of memory, loses nothing

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(dialogue.conversation.turns));
  } catch {
    // storage is blocked or full: the conversation lasts as long as the page
  }
}

function restore() {
  try {
    dialogue.restore(JSON.parse(sessionStorage.getItem(KEPT) ?? "[]"));
  } catch {
    // storage is blocked, or holds what another version of the page kept
  }
}

window.addEventListener("pagehide", keep);
document.addEventListener("visibilitychange", () => document.visibilityState === "hidden" && keep());
byId("start-over").onclick = () => {
  dialogue.forget();
  location.reload();
};

// ------------------------------------------------------------------------------------------------------------ keyboard

let pressed = null; // the space bar: since when, and whether the microphone was muted before

/** The space bar is the microphone's, unless something else that uses it has the focus. */
const takesSpace = ({ code, target: focus }) =>
  code === "Space" &&
  sound.microphone !== null &&
  (focus === byId("talk") || !focus.closest("button, input, select, textarea, a, summary, dialog"));

document.addEventListener("keydown", (event) => {
  sound.wake();
  if (event.key === "Escape" && !panel.isOpen) dialogue.stopReply();
  if (!takesSpace(event)) return;
  event.preventDefault();
  if (event.repeat || pressed) return;
  pressed = { atMs: event.timeStamp, muted: sound.muted };
  if (sound.muted) setMuted(false);
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
  if (sound.microphone && (held ? muted : !muted)) setMuted(true);
}

document.addEventListener("pointerdown", () => sound.wake());
window.addEventListener("online", () => dialogue.networkBack());
restore();
setInterval(() => {
  if (sound.context) strip.draw();
  dialogue.follow();
  view.draw();
}, TICK_MS);

try {
  target = endpoint(location.href);
  if (target.foreign)
    view.notice("foreign", `This page will connect to ${new URL(target.url).host}, not to the server it came from.`);
  // Another server is never connected to without a click: a link must not carry somebody's voice away.
  else if (new URLSearchParams(location.search).has("autostart")) start(true);
} catch (error) {
  byId("talk").disabled = byId("text").disabled = true;
  view.notice("server", `The address in ?url= cannot be used: ${error.message}`);
}
refresh();
