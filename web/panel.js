// The settings: devices, the echo check, how turns are taken, and what Relay is told about itself.

import { WIRE_HZ } from "./capture-worklet.js";
import { AFTER_S, BEFORE_S, SWEEP_S, echoAdvice, measureEcho, sweep } from "./echo.js";
import { readSettings } from "./settings.js";

const byId = (id) => document.getElementById(id);

/** Plays the sweep into a context and listens: `take` gets what the microphone hears, `done` resolves to the result. */
class EchoCheck {
  #heard = new Float32Array(Math.round((BEFORE_S + SWEEP_S + AFTER_S) * WIRE_HZ));
  #from; // the context's time, in samples at 24 kHz, at which listening begins
  #filled = 0;
  #contextHz;
  #finish;
  done = new Promise((resolve) => {
    this.#finish = resolve;
  });

  constructor(context) {
    this.#contextHz = context.sampleRate;
    const startS = context.currentTime + BEFORE_S + 0.1;
    this.#from = Math.round((startS - BEFORE_S) * WIRE_HZ);
    const buffer = context.createBuffer(1, Math.round(SWEEP_S * context.sampleRate), context.sampleRate);
    buffer.copyToChannel(sweep(context.sampleRate), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    source.start(startS);
  }

  /** Takes 20 ms from the microphone; `frame` is the context's clock at their end. */
  take(pcm, frame) {
    const at = Math.round((frame * WIRE_HZ) / this.#contextHz) - pcm.length - this.#from;
    for (let i = Math.max(0, -at); i < pcm.length && at + i < this.#heard.length; i += 1)
      this.#heard[at + i] = pcm[i] / 32768;
    this.#filled = at + pcm.length;
    if (this.#filled >= this.#heard.length) this.#finish(measureEcho(this.#heard, WIRE_HZ));
  }

  /** Ends it without a result. */
  cancel() {
    this.#finish(null);
  }
}

/** The dialog with the settings. `onsettings(settings)` is called for every change, `onclosed()` when it is closed. */
export class Panel {
  onsettings = (_settings) => {};
  onclosed = () => {};
  #sound;
  #echo = null;
  #refreshes = 0;
  #dialog = byId("settings");
  #form = byId("settings-form");

  constructor(sound, settings) {
    this.#sound = sound;
    for (const [name, value] of Object.entries(settings)) this.#form.elements[name].value = value ?? "";
    this.#showFields();
    byId("open-settings").onclick = () => this.open();
    byId("close-settings").onclick = () => this.#dialog.close();
    this.#form.onsubmit = (event) => {
      event.preventDefault();
      this.#dialog.close();
    };
    this.#form.onchange = (event) => this.#changed(event.target);
    byId("echo").onclick = () => this.#checkEcho();
    byId("try-microphone").onclick = () => this.#tryMicrophone();
    this.#dialog.onclose = () => {
      this.#echo?.cancel();
      this.onclosed();
    };
    navigator.mediaDevices?.addEventListener("devicechange", () => this.refresh());
  }

  get isOpen() {
    return this.#dialog.open;
  }

  open() {
    byId("copy-link").textContent = "Copy link";
    this.#dialog.showModal();
    this.refresh();
  }

  /** Shows the devices that are there now. */
  async refresh() {
    if (!this.isOpen) return;
    this.#refreshes += 1;
    const current = this.#refreshes;
    const { microphone, loudspeaker } = await this.#sound.devices();
    if (current !== this.#refreshes) return; // a later call knows more
    fill(this.#form.elements.microphone, microphone, "The browser’s choice");
    byId("loudspeaker-field").hidden = loudspeaker === null;
    if (loudspeaker) fill(this.#form.elements.loudspeaker, loudspeaker, "The browser’s choice");
    byId("try-microphone").hidden = this.#sound.microphone !== null;
    byId("level").hidden = this.#sound.microphone === null;
  }

  /** Lets the visitor choose among the server's paths, its own first; there is nothing to choose with one. */
  offer(paths) {
    const { path } = this.#form.elements;
    byId("path-field").hidden = paths.length < 2;
    for (const option of path.options) option.hidden = option.disabled = option.value && !paths.includes(option.value);
    path.options[0].textContent = `the server’s own: ${paths[0]}`;
    if (path.selectedOptions[0].disabled) path.value = "";
  }

  /** Takes 20 ms from the microphone; says whether the echo check kept them. */
  take(pcm, frame) {
    this.#echo?.take(pcm, frame);
    return this.#echo !== null;
  }

  #changed(field) {
    if (field.name === "microphone") this.#sound.chooseMicrophone(field.value).then(() => this.refresh());
    else if (field.name === "loudspeaker") this.#sound.chooseLoudspeaker(field.value);
    else {
      this.#showFields();
      this.onsettings(readSettings(new FormData(this.#form)));
    }
  }

  /** Only what belongs to the chosen way of taking turns is shown. */
  #showFields() {
    const { value } = this.#form.elements.turns;
    byId("silence-field").hidden = value !== "server_vad";
    byId("eagerness-field").hidden = value !== "semantic_vad";
    const speed = Number(this.#form.elements.speed.value);
    byId("speed-shown").textContent = `${speed.toFixed(2)} ×`;
  }

  /** Opens the microphone, also without a dialogue; says whether it is open. */
  async #tryMicrophone() {
    this.#say("");
    this.#sound.start();
    const ready = await this.#sound.ready().catch(() => false);
    const opened = ready && (await this.#sound.openMicrophone());
    if (!opened) this.#say("The microphone could not be opened. Close the settings to see why.");
    await this.refresh();
    return opened;
  }

  async #checkEcho() {
    if (this.#echo || (!this.#sound.microphone && !(await this.#tryMicrophone()))) return;
    this.#say("Listening…");
    const { muted } = this.#sound;
    this.#sound.muted = false;
    this.#echo = new EchoCheck(this.#sound.context);
    const result = await this.#echo.done;
    this.#echo = null;
    if (this.#sound.microphone) this.#sound.muted = muted;
    this.#say(result ? echoAdvice(result) : "");
  }

  #say(text) {
    byId("sound-result").textContent = text;
  }
}

/** Fills a list of devices. Before the microphone was allowed once, browsers name none. */
function fill(select, devices, none) {
  const options = devices.map(({ id, label, chosen }) => new Option(label, id, chosen, chosen));
  select.replaceChildren(...(options.length > 0 ? options : [new Option(none, "")]));
}
