// The wire, as the page speaks it: OpenAI Realtime events as JSON text, audio as binary frames (subprotocol relay.v1).
// Pure: bytes and text in, values out.

import { replyPath, turnDetection } from "./settings.js";

export const SUBPROTOCOL = "relay.v1";
const PCM = { type: "audio/pcm", rate: 24000 };

/**
 * Where to connect: the page's own server, or what `?url=` names (ws, wss, http or https; a bare host means its root).
 * Throws TypeError when that is no URL.
 *
 * @param {string} pageUrl  location.href
 * @returns {{url: string, foreign: boolean}}  foreign: another server than the one that served the page
 */
export function endpoint(pageUrl) {
  const page = new URL(pageUrl);
  const asked = page.searchParams.get("url");
  const url = new URL(asked && !/^[a-z]+:\/\//i.test(asked) ? `${page.protocol}//${asked}` : (asked ?? "/"), page);
  if (!["http:", "https:", "ws:", "wss:"].includes(url.protocol))
    throw new TypeError(`${url.protocol} is not a websocket address`);
  url.protocol = ["https:", "wss:"].includes(url.protocol) ? "wss:" : "ws:";
  if (url.pathname === "/") url.pathname = "/v1/realtime";
  url.hash = "";
  return { url: url.href, foreign: url.host !== page.host };
}

/**
 * The page's session: spoken replies, or text where the browser offers no sound. What the visitor left open (null here)
 * is the server's default.
 */
export function sessionUpdate({ sound, settings, served, paths = [] }) {
  return {
    type: "session.update",
    session: {
      type: "realtime",
      output_modalities: [sound ? "audio" : "text"],
      instructions: settings.instructions || null,
      audio: {
        input: { format: PCM, transcription: { model: "relay" }, turn_detection: turnDetection(settings, served) },
        output: { format: PCM, voice: settings.voice || null, speed: settings.speed },
      },
      relay: {
        playback: true,
        partials: true,
        words: true,
        metrics: true,
        draft: true,
        duck: true,
        ...replyPath(settings, paths),
      },
    },
  };
}

/** An item of the conversation: what the user typed, or what either said before the connection was lost. */
export function messageItem(role, text, id = undefined) {
  const type = role === "user" ? "input_text" : "output_text";
  return { type: "conversation.item.create", item: { id, type: "message", role, content: [{ type, text }] } };
}

export const responseCreate = () => ({ type: "response.create" });
export const inputClear = () => ({ type: "input_audio_buffer.clear" });
export const inputCommit = () => ({ type: "input_audio_buffer.commit" });
/** Stops the reply, whether it is still being made or only still being played. */
export const outputClear = () => ({ type: "output_audio_buffer.clear" });
export const playbackReport = (responseId, samples) => ({
  type: "relay.playback",
  response_id: responseId,
  played_samples: samples,
});

/** A server event; null for text that is none. */
export function parseEvent(text) {
  try {
    const event = JSON.parse(text);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}

const HEADER_BYTES = 16;
const KIND_AUDIO = 1;
const FORMAT_PCM16 = 0;

/**
 * The audio in a binary frame: `{index, first, pcm}` with the response's number, the position of the first sample in
 * its output, and [samples] int16 at 24 kHz (a view of `data`). Null for a kind of frame or a format that the page does
 * not know, and for a damaged frame. The layout is that of relay/wire/binary.py.
 *
 * @param {ArrayBuffer} data
 */
export function parseAudio(data) {
  if (data.byteLength < HEADER_BYTES || data.byteLength % 2) return null;
  const header = new DataView(data, 0, HEADER_BYTES);
  if (header.getUint8(0) !== KIND_AUDIO || header.getUint8(1) !== FORMAT_PCM16) return null;
  return {
    index: header.getUint32(4, true),
    first: Number(header.getBigUint64(8, true)),
    pcm: new Int16Array(data, HEADER_BYTES),
  };
}

const FINAL_CODES = new Set([1002, 1003, 1007, 1008, 1009, 1010, 3000]); // trying again would end the same way

/**
 * What the end of a connection means: `problem` in words, `final` if trying again makes no sense. The server's reasons
 * read `code: message`.
 */
export function closeProblem(code, reason) {
  const message = reason.replace(/^\w+: /, "");
  const said = message
    ? `The server ended the connection: ${message}`
    : `The connection to the server was lost (${code}).`;
  return { problem: said, final: FINAL_CODES.has(code) };
}

/** The subprotocols to offer; browsers can send an API key in no other way. */
export function subprotocols(apiKey) {
  return apiKey ? [SUBPROTOCOL, `openai-insecure-api-key.${apiKey}`] : [SUBPROTOCOL];
}
