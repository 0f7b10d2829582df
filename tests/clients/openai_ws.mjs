// A push-to-talk dialogue over TLS through the npm package `openai`: the client says when a turn ends, and interrupts.
// node openai_ws.mjs https://127.0.0.1:8000 KEY question.pcm interruption.pcm certificate.pem
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const BYTES_PER_MS = 48;
const CHUNK_BYTES = 20 * BYTES_PER_MS;
const INTERRUPT_AFTER_MS = 4000;

const [url, apiKey, question, interruption, certificate] = process.argv.slice(2);
const report = (kind, fields) => console.log(JSON.stringify({ kind, ...fields }));
const client = new OpenAI({ apiKey, baseURL: `${url}/v1` });
const rt = new OpenAIRealtimeWS({ model: "relay", options: { ca: readFileSync(certificate) } }, client);

function say(path) {
  const audio = readFileSync(path);
  for (let at = 0; at < audio.length; at += CHUNK_BYTES) {
    rt.send({ type: "input_audio_buffer.append", audio: audio.subarray(at, at + CHUNK_BYTES).toString("base64") });
  }
  rt.send({ type: "input_audio_buffer.commit" });
  rt.send({ type: "response.create" });
}

let chunks = [];
let playingSince = 0;
let hasSpokenTwice = false;
let interruptedResponse = null;

function interrupt({ item_id, response_id, content_index }) {
  hasSpokenTwice = true;
  interruptedResponse = response_id;
  rt.send({ type: "response.cancel", response_id });
  rt.send({ type: "output_audio_buffer.clear" });
  const audio_end_ms = Math.min(Date.now() - playingSince, Math.floor(Buffer.concat(chunks).length / BYTES_PER_MS));
  rt.send({ type: "conversation.item.truncate", item_id, content_index, audio_end_ms });
}

rt.on("session.created", () => {
  const look_up = {
    type: "function",
    name: "look_up",
    description: "Looks the weather of a city up.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  };
  const input = { transcription: { model: "relay" }, turn_detection: null };
  const session = { type: "realtime", instructions: "Be brief.", audio: { input }, tools: [look_up] };
  rt.send({ type: "session.update", session });
});
rt.on("session.updated", () => {
  rt.send({ type: "input_audio_buffer.append", audio: Buffer.alloc(CHUNK_BYTES).toString("base64") });
  rt.send({ type: "input_audio_buffer.clear" });
});
rt.on("input_audio_buffer.cleared", () => say(question));
rt.on("conversation.item.input_audio_transcription.completed", ({ transcript }) => {
  report("heard", { text: transcript });
});
rt.on("response.output_audio.delta", (event) => {
  if (!chunks.length) playingSince = Date.now();
  chunks.push(Buffer.from(event.delta, "base64"));
  if (!hasSpokenTwice && Buffer.concat(chunks).length > INTERRUPT_AFTER_MS * BYTES_PER_MS) interrupt(event);
});
rt.on("conversation.item.truncated", () => say(interruption));
rt.on("response.function_call_arguments.done", (call) => {
  report("tool", { name: call.name, ...JSON.parse(call.arguments) });
});
rt.on("response.done", ({ response }) => {
  const [item] = response.output;
  if (item.type === "function_call") {
    const output = { type: "function_call_output", call_id: item.call_id, output: "sunny" };
    rt.send({ type: "conversation.item.create", item: output });
    rt.send({ type: "response.create" });
    return;
  }
  const audio = Buffer.concat(chunks);
  let peak = 0;
  for (let at = 0; at < audio.length; at += 2) peak = Math.max(peak, Math.abs(audio.readInt16LE(at)));
  const interrupted = response.id === interruptedResponse;
  report("reply", { text: item.content[0].transcript, ms: audio.length / BYTES_PER_MS, peak, interrupted });
  chunks = [];
  if (!interrupted) rt.send({ type: "conversation.item.delete", item_id: item.id });
});
rt.on("conversation.item.deleted", () => rt.close());
rt.on("error", (error) => {
  report("error", { message: error.message });
  rt.close();
});
