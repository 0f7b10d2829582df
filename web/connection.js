// One websocket to the server, kept alive: it comes back after a loss, and says why when it cannot.

import { closeProblem, subprotocols } from "./protocol.js";

const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 8000;
const MAX_ATTEMPTS = 8;
const STEADY_MS = 10000; // a connection that lasted this long was a good one: the next loss counts from the beginning

/**
 * Calls back, in this order for every connection: `onopen()`, `onmessage(data: string | ArrayBuffer)`..., then either
 * `onretry(delayMs)` after a loss, or `onclosed(problem: string | null)` once, when it is over for good.
 */
export class Connection {
  onopen = () => {};
  onmessage = (_data) => {};
  onretry = (_delayMs) => {};
  onclosed = (_problem) => {};

  #url;
  #protocols;
  #socket = null;
  #everOpen = false;
  #openedMs = null; // when the socket of now opened
  #closed = false;
  #attempts = 0;
  #timer = null;

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

  /** Sends an event (object, as JSON) or audio (Int16Array, as bytes); what cannot be sent now is dropped. */
  send(message) {
    if (!this.open) return;
    this.#socket.send(ArrayBuffer.isView(message) ? message : JSON.stringify(message));
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
    socket.onopen = () => {
      this.#everOpen = true;
      this.#openedMs = performance.now();
      this.onopen();
    };
    socket.onmessage = ({ data }) => this.onmessage(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#socket = socket;
  }

  async #lost(code, reason) {
    this.#forget();
    const { problem, final } = closeProblem(code, reason);
    if (this.#openedMs !== null && performance.now() - this.#openedMs > STEADY_MS) this.#attempts = 0;
    this.#openedMs = null;
    if (this.#everOpen && !final && this.#attempts < MAX_ATTEMPTS) {
      const delayMs = Math.min(MAX_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#attempts) * (0.75 + Math.random() / 2);
      this.#attempts += 1;
      this.#timer = setTimeout(() => this.#open(), delayMs);
      this.onretry(delayMs);
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
