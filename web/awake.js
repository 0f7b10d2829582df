// Keeps the screen on during a dialogue: a telephone that falls asleep stops listening.

export class Awake {
  #wanted = false;
  #lock = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#apply()); // browsers let go when the page is hidden
  }

  /** @param {boolean} wanted */
  set wanted(wanted) {
    if (wanted === this.#wanted) return;
    this.#wanted = wanted;
    this.#apply();
  }

  async #apply() {
    if (!navigator.wakeLock) return; // not offered to insecure origins
    if (!this.#wanted) {
      this.#lock?.release();
      return;
    }
    if (this.#lock || document.visibilityState !== "visible") return;
    const lock = await navigator.wakeLock.request("screen").catch(() => null); // refused: the battery is low
    if (lock === null) return;
    if (!this.#wanted || this.#lock) {
      lock.release();
      return;
    }
    this.#lock = lock;
    lock.onrelease = () => {
      this.#lock = null;
    };
  }
}
