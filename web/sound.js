// The sound side of the page: one AudioContext with the chosen microphone and loudspeaker, and what can go wrong there.

import { Microphone, Speaker, loadWorklets, microphoneProblem, soundAllowed } from "./audio.js";

const START_MS = 500; // a context that may run does so by then
const INSECURE =
  "Browsers give the microphone and sound only to pages from https or from localhost, and this page is neither. " +
  "Typing works. " +
  "To talk, open the page on the server’s own machine, or start the server with --tls-cert and --tls-key.";

/** Names of chosen devices, kept for the next visit where the browser allows it. */
const kept = {
  get(kind) {
    try {
      return localStorage.getItem(`relay.${kind}`) ?? "";
    } catch {
      return ""; // storage is blocked: the default device, then
    }
  },
  set(kind, deviceId) {
    try {
      localStorage.setItem(`relay.${kind}`, deviceId);
    } catch {
      // storage is blocked: the choice holds for this visit
    }
  },
};

/**
 * Calls back: `onframe(pcm, level, frame)` and `onplayback(event)` as Microphone and Speaker do, `onchange()` when
 * something opened, closed, or was muted, and `onnotice(key, text | null, action)` with what the person must know.
 */
export class Sound {
  onframe = (_pcm, _level, _frame) => {};
  onplayback = (_event) => {};
  onchange = () => {};
  onnotice = (_key, _text, _action) => {};

  context = null;
  speaker = null;
  microphone = null;
  #chosen = { microphone: kept.get("microphone"), loudspeaker: kept.get("loudspeaker") };
  #opening = null; // a microphone that was asked for: {context, done: Promise}

  /** Whether the browser lets this page use sound at all; if not, says why. */
  allowed() {
    if (soundAllowed()) return true;
    this.onnotice("sound", INSECURE);
    return false;
  }

  /** Begins. To be called while a click or a key is handled: some browsers want one for it. */
  start() {
    this.onnotice("sound", null);
    if (!this.context && this.allowed()) this.context = new AudioContext({ latencyHint: "interactive" });
  }

  /**
   * Makes the loudspeaker ready; says whether it is. False where sound is not allowed, and when it was stopped
   * meanwhile. Rejects if the worklets cannot be loaded.
   */
  async ready() {
    const context = this.context;
    if (!context || this.speaker) return this.speaker !== null;
    await loadWorklets(context);
    if (context !== this.context) return false;
    if (this.speaker) return true; // asked for twice
    this.speaker = new Speaker(context);
    this.speaker.onevent = (event) => this.onplayback(event);
    context.onstatechange = () => this.#stateChanged();
    setTimeout(() => this.#stateChanged(), START_MS);
    await this.#route();
    return context === this.context;
  }

  /** Opens the chosen microphone; says whether it is open. What goes wrong becomes a notice. */
  openMicrophone() {
    const { context } = this;
    if (this.#opening?.context !== context) {
      const opening = { context, done: this.#openMicrophone() };
      this.#opening = opening;
      opening.done.finally(() => {
        if (this.#opening === opening) this.#opening = null;
      });
    }
    return this.#opening.done;
  }

  get muted() {
    return this.microphone?.muted ?? true;
  }

  set muted(muted) {
    this.microphone.muted = muted;
    this.onchange();
  }

  /** What can be chosen: `{microphone, loudspeaker}`, lists of `{id, label, chosen}`; loudspeaker is null without. */
  async devices() {
    const all = soundAllowed() ? await navigator.mediaDevices.enumerateDevices() : [];
    const list = (kind, name, wanted, used) => {
      const devices = all.filter((device) => device.kind === kind && device.deviceId !== "");
      const chosen = devices.some(({ deviceId }) => deviceId === wanted) ? wanted : used;
      return devices.map(({ deviceId: id, label }, i) => ({
        id,
        label: label || `${name} ${i + 1}`,
        chosen: id === chosen,
      }));
    };
    return {
      microphone: list("audioinput", "Microphone", this.#chosen.microphone, this.microphone?.deviceId ?? "default"),
      loudspeaker: AudioContext.prototype.setSinkId
        ? list("audiooutput", "Loudspeaker", this.#chosen.loudspeaker, "default")
        : null,
    };
  }

  /** Takes another microphone, at once if one is open. */
  async chooseMicrophone(deviceId) {
    this.#chosen.microphone = deviceId;
    kept.set("microphone", deviceId);
    if (!this.microphone) return;
    const { muted } = this.microphone;
    this.#closeMicrophone();
    if (await this.openMicrophone()) this.muted = muted;
  }

  /** Takes another loudspeaker. */
  async chooseLoudspeaker(deviceId) {
    this.#chosen.loudspeaker = deviceId === "default" ? "" : deviceId;
    kept.set("loudspeaker", this.#chosen.loudspeaker);
    await this.#route();
  }

  /** Lets the browser play when it held sound back; to be called while a click or a key is handled. */
  wake() {
    if (this.context && this.context.state !== "running") this.context.resume();
  }

  stop() {
    this.#closeMicrophone();
    this.speaker?.close();
    if (this.context) {
      this.context.onstatechange = null;
      this.context.close();
    }
    this.speaker = this.context = null;
    for (const key of ["suspended", "silence"]) this.onnotice(key, null);
    this.onchange();
  }

  async #openMicrophone() {
    const context = this.context;
    for (const key of ["microphone", "silence"]) this.onnotice(key, null);
    const again = { label: "Try again", run: () => this.openMicrophone() };
    try {
      const opened = await Microphone.open(context, this.#chosen.microphone);
      if (context !== this.context) {
        opened.close(); // ended meanwhile
        return false;
      }
      this.microphone = opened;
    } catch (error) {
      if (context === this.context) this.onnotice("microphone", microphoneProblem(error), again);
      return false;
    }
    this.microphone.onframe = (pcm, level, frame) => this.onframe(pcm, level, frame);
    const dead = "The microphone gives no sound at all. Is it switched off, or is it the wrong one?";
    this.microphone.onsilence = (silent) => this.onnotice("silence", silent ? dead : null);
    this.microphone.onended = () => {
      this.#closeMicrophone();
      this.onnotice("microphone", "The microphone was disconnected.", again);
      this.onchange();
    };
    this.onchange();
    return true;
  }

  #closeMicrophone() {
    this.microphone?.close();
    this.microphone = null;
  }

  /** Sends sound to the chosen loudspeaker; if that is gone, to the default one. */
  async #route() {
    if (!this.context?.setSinkId || this.context.sinkId === this.#chosen.loudspeaker) return;
    try {
      await this.context.setSinkId(this.#chosen.loudspeaker);
      this.onnotice("loudspeaker", null);
    } catch {
      this.onnotice("loudspeaker", "The chosen loudspeaker cannot be used; you hear Relay on the default one.");
    }
  }

  #stateChanged() {
    if (!this.context || this.context.state === "running") this.onnotice("suspended", null);
    else
      this.onnotice("suspended", "The browser holds sound back until you click or press a key.", {
        label: "Turn sound on",
        run: () => this.wake(),
      });
  }
}
