// node agents_realtime_node.mjs http://127.0.0.1:8000 KEY question.pcm interruption.pcm
import { readFileSync } from "node:fs";
import { dialogue } from "./agents_realtime.mjs";

const [url, apiKey, ...paths] = process.argv.slice(2);
const [question, interruption] = paths.map((path) => new Uint8Array(readFileSync(path)));
const report = (kind, fields) => console.log(JSON.stringify({ kind, ...fields }));
await dialogue({ url, apiKey, question, interruption }, report);
