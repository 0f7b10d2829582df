// One websocket to the server, kept alive: it comes back after a loss, and says why when it cannot.

import { closeProblem, subprotocols } from "./protocol.js";

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;
const MAX_ATTEMPTS = 8;
const HANDSHAKE_MS = 10000; // a server that has not answered by then is taken for absent
const MAX_WAITING_BYTES = 48000; // one second of audio: what would arrive later than that is of no use
const STALLED_MS = 10000; // a socket that has taken nothing for so long is a dead one that nobody closed
const NO_STATUS = 1006; // what browsers say of a socket that ended without a closing handshake (RFC 6455, 7.1.5)
const STEADY_MS = 10000; // a connection that lasted this long was a good one: the next loss counts from the beginning

/**
 * Calls back, in this order for every connection: `onopen()`, `onmessage(data: string | ArrayBuffer)`..., then either
 * `onretry(delayMs, attempt, attempts)` after a loss, or `onclosed(problem: string | null)` once, when it is over for
 * good. In between `onslow(slow)` says that audio cannot be sent as fast as it is heard, and that it can again.
 */
export class Connection {
  onopen = () => {};
  onmessage = (_data) => {};
  onretry = (_delayMs, _attempt, _attempts) => {};
  onslow = (_slow) => {};
  onclosed = (_problem) => {};

  #url;
  #protocols;
  #socket = null;
  #everOpen = false;
  #openedMs = null; // when the socket of now opened
  #closed = false;
  #attempts = 0;
  #timer = null; // of the handshake, or of the next attempt
  #slowSinceMs = null;

  /**
   * @param {string} url of the realtime endpoint
   * @param {string | null} apiKey
   * @throws {SyntaxError} the key has characters that no subprotocol may have
   */
  constructor(url, apiKey) {
    this.#url = url;
    this.#protocols = subprotocols(apiKey);
    this.#open();
  }

  get open() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Sends an event, as JSON; without a connection it is dropped. */
  send(event) {
    if (this.open) this.#socket.send(JSON.stringify(event));
  }

  /** Sends audio (Int16Array), or drops it when too much is waiting already. Says whether it was sent. */
  sendAudio(pcm) {
    if (!this.open) return false;
    if (this.#socket.bufferedAmount > MAX_WAITING_BYTES) {
      this.#slowSinceMs ??= performance.now();
      if (performance.now() - this.#slowSinceMs > STALLED_MS) this.#drop();
      else this.onslow(true);
      return false;
    }
    if (this.#slowSinceMs !== null) this.onslow(false);
    this.#slowSinceMs = null;
    this.#socket.send(pcm);
    return true;
  }

  /** Makes the next attempt now instead of later. */
  retryNow() {
    if (this.#socket || this.#closed || this.#timer === null) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  /** Ends the connection at the user's wish. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#forget()?.close(1000);
    this.onclosed(null);
  }

  #open() {
    const socket = new WebSocket(this.#url, this.#protocols);
    socket.binaryType = "arraybuffer";
    this.#timer = setTimeout(() => this.#drop(), HANDSHAKE_MS);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#everOpen = true;
      this.#openedMs = performance.now();
      this.onopen();
    };
    socket.onmessage = ({ data }) => this.onmessage(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#socket = socket;
  }

  /** Gives up a socket that does not come to an end by itself. */
  #drop() {
    this.#socket.close();
    this.#lost(NO_STATUS, "");
  }

  async #lost(code, reason) {
    this.#forget();
    clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#slowSinceMs !== null) this.onslow(false);
    this.#slowSinceMs = null;
    const { problem, final } = closeProblem(code, reason);
    if (this.#openedMs !== null && performance.now() - this.#openedMs > STEADY_MS) this.#attempts = 0;
    this.#openedMs = null;
    if (this.#everOpen && !final && this.#attempts < MAX_ATTEMPTS) {
      const delayMs = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempts) * (0.75 + Math.random() / 2);
      this.#attempts += 1;
      this.#timer = setTimeout(() => this.#open(), delayMs);
      this.onretry(delayMs, this.#attempts, MAX_ATTEMPTS);
    } else if (this.#everOpen || final) {
      this.onclosed(problem);
    } else {
      const unreachable = await this.#unreachable();
      if (!this.#closed) this.onclosed(unreachable);
    }
  }

  /** Why the very first handshake failed: browsers do not tell, but whether anything answers there can be found out. */
  async #unreachable() {
    const { host } = new URL(this.#url);
    if (host !== location.host)
      return `No connection to ${host}. Is “relay serve” running there, and does it admit other sites’ pages?`;
    const health = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(3000) }).catch(() => null);
    return health?.ok
      ? "The server refused the connection: it is full, or it wants an API key (add #key=… to this page’s address)."
      : `No server answers at ${host}. Is “relay serve” running there?`;
  }

  #forget() {
    const socket = this.#socket;
    if (socket) socket.onopen = socket.onmessage = socket.onclose = null;
    this.#socket = null;
    return socket;
  }
}
