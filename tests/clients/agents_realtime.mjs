// A dialogue through the npm package `@openai/agents-realtime`, in Node and in a page alike.
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from "@openai/agents-realtime";

const BYTES_PER_MS = 48;
const CHUNK_BYTES = 20 * BYTES_PER_MS;
const INTERRUPT_AFTER_MS = 4000;
const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: true,
};

/** The largest sample of a chunk. */
function peak(chunk) {
  return new Int16Array(chunk.buffer).reduce((top, sample) => Math.max(top, Math.abs(sample)), 0);
}

/**
 * The caller breaks into the first reply, and the second calls a function. The package truncates, runs the tool and
 * asks for its reply by itself.
 *
 * @param {{url: string, apiKey: string, question: Uint8Array, interruption: Uint8Array}} call Speech: 24 kHz, 16 bits.
 * @param {(kind: string, fields: object) => void} report Gets what was seen.
 */
export async function dialogue({ url, apiKey, question, interruption }, report) {
  const lookUp = tool({
    name: "look_up",
    description: "Looks the weather of a city up.",
    parameters: CITY,
    strict: false,
    execute: ({ city }) => {
      report("tool", { name: "look_up", city });
      return "sunny";
    },
  });
  const agent = new RealtimeAgent({ name: "Relay", instructions: "Be brief.", tools: [lookUp] });
  const address = `${url.replace("http", "ws")}/v1/realtime?model=relay`;
  // Pages should be given keys that expire, which begin with "ek_"; this is the server's own.
  const transport = new OpenAIRealtimeWebSocket({ url: address, useInsecureApiKey: true });
  const session = new RealtimeSession(agent, { transport, model: "relay" });

  const speak = (audio) => {
    for (let at = 0; at < audio.length; at += CHUNK_BYTES) {
      session.sendAudio(audio.slice(at, at + CHUNK_BYTES).buffer);
    }
  };
  let chunks = [];
  let text = "";
  let interrupted = false;
  let hasSpokenTwice = false;
  const bytes = () => chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const ended = new Promise((resolve, reject) => {
    session.on("error", ({ error }) => reject(new Error(JSON.stringify(error?.error ?? String(error)))));
    session.on("audio", ({ data }) => {
      chunks.push(new Uint8Array(data));
      if (!hasSpokenTwice && bytes() > INTERRUPT_AFTER_MS * BYTES_PER_MS) {
        hasSpokenTwice = true;
        speak(interruption);
      }
    });
    session.on("audio_interrupted", () => {
      interrupted = true;
    });
    session.on("transport_event", (event) => {
      if (event.type === "conversation.item.input_audio_transcription.completed") {
        report("heard", { text: event.transcript });
      }
      if (event.type === "response.output_audio_transcript.delta") text += event.delta;
      if (event.type !== "response.done" || !chunks.length) return;
      report("reply", { text, ms: bytes() / BYTES_PER_MS, peak: Math.max(...chunks.map(peak)), interrupted });
      if (!interrupted) resolve();
      [chunks, text, interrupted] = [[], "", false];
    });
  });
  await session.connect({ apiKey });
  speak(question);
  await ended;
  const said = session.history.filter((item) => item.type === "message").map((item) => item.content[0].transcript);
  report("history", { said });
  session.close();
}
