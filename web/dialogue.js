// The dialogue: carries events between the connection, the sound, the conversation and the view.

import { InputClock } from "./audio.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import * as protocol from "./protocol.js";
import { Recording } from "./recording.js";

const REPORT_EVERY_S = 0.1;
const LEAST_FRAMES = 5; // less than 100 ms of speech is a slip of the finger
const MANY_GAPS = 3; // a reply with so many is worth a word

/**
 * `onchange()` is called whenever the phase, the activity or the microphone changed; `onpaths(paths)` when the server
 * has told how it can make replies.
 */
export class Dialogue {
  onchange = () => {};
  onpaths = (_paths) => {};
  phase = "idle"; // idle, connecting, open or reconnecting
  recording = new Recording();
  conversation = new Conversation((inputMs) => this.#inputClock.heardAtMs(inputMs));

  #view;
  #sound;
  #settings;
  #connection = null;
  #inputClock = new InputClock();
  #waitingText = ""; // typed before the connection was there
  #askWhenDone = false; // a reply is asked for as soon as the cancelled one has ended
  #reported = { index: 0, frame: 0 };
  #clock = null; // the context that the recording counts on
  #followed = { index: 0, played: 0 };
  #served = undefined; // how the server finds the ends of turns by itself
  #paths = []; // how it can make replies, its own way first
  #spokenFrames = 0; // sent since the microphone was opened by hand

  constructor(view, sound, settings) {
    this.#view = view;
    this.#sound = sound;
    this.#settings = settings;
  }

  /** idle, connecting or reconnecting; while it is open listening, hearing, thinking or speaking. */
  get activity() {
    return this.phase === "open" ? this.conversation.activity : this.phase;
  }

  /** Whether turns are ended by hand. */
  get manual() {
    return this.#settings.turns === "manual";
  }

  /** Takes new settings; the next reply follows them. */
  set settings(settings) {
    this.#settings = settings;
    if (this.phase === "open") this.#sendSession();
    this.onchange();
  }

  /** Goes on with a conversation that was kept as data. */
  restore(kept) {
    const turns = this.conversation.restore(kept);
    this.#show(turns);
    for (const turn of turns) if (turn.kind === "reply") this.#showTiming(turn);
  }

  /** Ends it, and forgets all that was said. */
  forget() {
    this.end();
    this.conversation.turns = [];
  }

  /** Connects; with `talk`, opens the microphone as soon as the server has answered. */
  start(url, apiKey, { talk }) {
    if (this.phase !== "idle") return;
    for (const key of ["server", "microphone"]) this.#view.clear(key);
    this.#setPhase("connecting", "Connecting");
    this.#sound.start();
    let connection;
    try {
      connection = new Connection(url, apiKey);
    } catch (error) {
      this.#stopped(`The connection cannot be opened: ${error.message}`);
      return;
    }
    this.#connection = connection;
    connection.onopen = () => this.#opened(talk);
    connection.onmessage = (data) =>
      typeof data === "string" ? this.#received(protocol.parseEvent(data)) : this.#receivedAudio(data);
    connection.onretry = (_delayMs, attempt, attempts) => this.#retrying(attempt, attempts);
    connection.onslow = (slow) => this.#slow(slow);
    connection.onclosed = (problem) =>
      this.#stopped(problem, { label: "Try again", run: () => this.start(url, apiKey, { talk }) });
  }

  /** Ends it at the user's wish. */
  end() {
    this.#connection?.close();
  }

  /** The network is back: a lost connection need not wait any longer. */
  networkBack() {
    this.#connection?.retryNow();
  }

  /** Sends what was typed, now or when the connection is there; says whether there is a connection to wait for. */
  ask(text) {
    if (this.phase === "open") this.#ask(text);
    else this.#waitingText = `${this.#waitingText}\n${text}`.trim();
    return this.phase !== "idle";
  }

  /** Stops the reply at the user's wish. */
  stopReply() {
    this.#hush();
    if (this.conversation.answering) this.#connection?.send(protocol.outputClear());
  }

  /** Closes or opens the microphone's ear. Where turns are ended by hand, that is how. */
  setMuted(muted) {
    this.#sound.muted = muted;
    if (!this.manual || this.phase !== "open") return;
    if (!muted) {
      this.stopReply();
      this.#connection.send(protocol.inputClear());
      this.#spokenFrames = 0;
    } else if (this.#spokenFrames >= LEAST_FRAMES) {
      this.#connection.send(protocol.inputCommit());
      this.#requestReply();
    }
  }

  /** Takes 20 ms from the microphone. */
  heard(pcm, frame) {
    if (this.phase !== "open") return;
    this.recording.microphone(pcm, frame);
    if (this.manual && this.#sound.muted) return; // nothing but silence, which nobody waits for
    if (!this.#connection.sendAudio(pcm)) return;
    this.#spokenFrames += 1;
    this.#inputClock.sent(performance.now());
  }

  /** Takes what the loudspeaker tells. */
  playback(event) {
    const { type, index, played, frame } = event;
    const { conversation, recording } = this;
    const reply = conversation.reply(index);
    if (type === "onset") {
      this.#sound.speaker.measureLatency();
      this.#show(conversation.audible(index, performance.now() + this.#sound.speaker.heardInMs(frame)));
      this.#showTiming(reply);
      return;
    }
    if (reply) {
      recording.played(reply.id, played, frame);
      if (type === "flushed" || type === "finished") recording.finished(reply.id);
      this.#report(reply, event);
    }
    if (type === "starved") this.#starved(index);
    if (type === "flushed") this.#show(conversation.cut(index, played));
    if (type === "finished")
      setTimeout(() => {
        this.#show(conversation.played(index, played, true));
        this.onchange();
      }, this.#sound.speaker?.heardInMs(frame));
  }

  /** Follows the playback clock: words are lit when they are heard, not when they arrive. */
  follow() {
    const heard = this.#sound.speaker?.heard();
    if (!heard || (heard.index === this.#followed.index && heard.played === this.#followed.played)) return;
    this.#followed = heard;
    this.#show(this.conversation.played(heard.index, heard.played));
    this.onchange();
  }

  // -------------------------------------------------------------------------------------------------------- connection

  #setPhase(phase, announcement) {
    this.phase = phase;
    this.onchange();
    this.#view.announce(announcement);
  }

  #sendSession() {
    const sound = this.#sound.speaker !== null;
    const asked = { sound, settings: this.#settings, served: this.#served, paths: this.#paths };
    this.#connection.send(protocol.sessionUpdate(asked));
  }

  async #opened(talk) {
    const connection = this.#connection;
    const again = this.phase === "reconnecting";
    this.#paths = []; // it may be another server
    try {
      await this.#sound.ready();
    } catch (error) {
      if (connection === this.#connection) {
        connection.close();
        this.#view.notice("sound", `Sound could not be started: ${error.message}`);
      }
      return;
    }
    if (connection !== this.#connection || !connection.open) return;
    this.#followClock();
    this.#sendSession();
    for (const { role, id, text } of this.conversation.history()) connection.send(protocol.messageItem(role, text, id));
    this.#inputClock = new InputClock();
    this.#sound.speaker?.restart();
    this.#reported = { index: 0, frame: 0 };
    this.#askWhenDone = false;
    this.#spokenFrames = 0;
    this.#view.clear("server");
    this.#setPhase("open", "Connected");
    if (talk && this.#sound.speaker && !this.#sound.microphone) this.#sound.openMicrophone();
    if (this.#waitingText) this.#ask(this.#waitingText);
    else if (again && this.conversation.owed) connection.send(protocol.responseCreate()); // the loss swallowed it
    this.#waitingText = "";
  }

  /** The recording counts on the sound card's clock; every context has one of its own. */
  #followClock() {
    const { context } = this.#sound;
    if (context && context !== this.#clock) this.recording.begin(context.sampleRate);
    this.#clock = context;
  }

  #retrying(attempt, attempts) {
    this.#lost("reconnecting", "Connection lost. Reconnecting.");
    const text = `The connection was lost. What was said is kept; trying again (${attempt} of ${attempts}).`;
    this.#view.notice("server", text, { label: "Try now", run: () => this.networkBack() });
  }

  /** The connection is over for good. */
  #stopped(problem, action = null) {
    this.#connection = null;
    this.#lost("idle", "Not connected");
    this.#sound.stop();
    this.#view.clear("server");
    if (problem) this.#view.notice("server", problem, action);
  }

  #lost(phase, announcement) {
    this.#hush();
    this.#show(this.conversation.disconnected());
    for (const key of ["slow", "gaps"]) this.#view.clear(key);
    this.#setPhase(phase, announcement);
  }

  #slow(slow) {
    if (!slow) this.#view.clear("slow");
    else if (!this.#view.notices("slow"))
      this.#view.notice("slow", "The network cannot carry your voice: Relay misses words. Wait a moment, or type.");
  }

  // ------------------------------------------------------------------------------------------------------------ events

  #received(event) {
    if (!event) return;
    const { conversation, recording } = this;
    this.#show(conversation.receive(event, performance.now()));
    switch (event.type) {
      case "session.created":
        this.#served = event.session?.audio?.input?.turn_detection;
        break;
      case "session.updated":
        this.#offered(event.session?.relay?.paths ?? []);
        break;
      case "input_audio_buffer.speech_started":
        this.#hush();
        break;
      case "relay.duck":
        this.#sound.speaker?.hold(event.ducked);
        break;
      case "relay.metrics":
        this.#showTiming(conversation.turn(event.response_id));
        break;
      case "response.output_audio.done":
        this.#sound.speaker?.end(conversation.turn(event.response_id)?.index);
        break;
      case "response.done":
        this.#ended(event.response);
        break;
      case "error":
        this.#view.notice("error", event.error.message);
        break;
      default:
    }
    this.onchange();
  }

  /** Takes what the server offers: not before it is known can a path be asked for. */
  #offered(paths) {
    if (paths.join() === this.#paths.join()) return;
    this.#paths = paths;
    this.onpaths(paths);
    if (paths.includes(this.#settings.path)) this.#sendSession();
  }

  #receivedAudio(data) {
    const frame = protocol.parseAudio(data);
    const reply = frame && this.conversation.reply(frame.index);
    if (!reply || !this.#sound.speaker) return;
    this.#show(this.conversation.audioReceived(frame.index, frame.first, frame.pcm, performance.now()));
    this.recording.received(reply.id, frame.first, frame.pcm);
    this.#sound.speaker.play(frame.index, frame.first, frame.pcm);
  }

  #ended(response) {
    const reply = this.conversation.turn(response.id);
    if (!reply) return;
    this.#sound.speaker?.end(reply.index);
    if (!this.#sound.speaker && reply.transcript) this.#view.announce(`Relay: ${reply.transcript}`);
    if (this.#askWhenDone) this.#connection.send(protocol.responseCreate());
    this.#askWhenDone = false;
  }

  /** Typed text interrupts like speech. */
  #ask(text) {
    this.stopReply();
    this.#connection.send(protocol.messageItem("user", text));
    this.conversation.typed(performance.now());
    this.#requestReply();
  }

  /** The next reply can be asked for only when the last has ended. */
  #requestReply() {
    this.#askWhenDone = this.conversation.replying;
    if (!this.#askWhenDone) this.#connection.send(protocol.responseCreate());
  }

  // ---------------------------------------------------------------------------------------------------------- playback

  /** Stops what is being said, at once: the user has the floor. */
  #hush() {
    this.#sound.speaker?.flush(this.conversation.newestIndex);
  }

  #starved(index) {
    const reply = this.conversation.reply(index);
    this.#show(this.conversation.starved(index));
    this.#showTiming(reply);
    if (reply?.starved === MANY_GAPS)
      this.#view.notice(
        "gaps",
        "The reply comes in pieces: the network or the server is too slow. Relay buffers more now.",
      );
  }

  /** Tells the server what was played: every 100 ms, and at once when playing stops. */
  #report(reply, { type, index, played, frame }) {
    const every = REPORT_EVERY_S * (this.#sound.context?.sampleRate ?? 0);
    if (type === "played" && index === this.#reported.index && frame - this.#reported.frame < every) return;
    this.#reported = { index, frame };
    this.#connection?.send(protocol.playbackReport(reply.id, played));
  }

  #show(turns) {
    for (const turn of turns) this.#view.show(turn);
  }

  #showTiming(reply) {
    if (reply?.timing) this.#view.showTiming(reply, this.conversation.onsets);
  }
}
