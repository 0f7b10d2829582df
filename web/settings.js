// What a visitor can set, as it stands in the page's address: a link carries a set-up. Pure: addresses in and out.

/** Every setting at its default; null leaves it to the server. */
export const DEFAULTS = Object.freeze({
  instructions: "",
  voice: "",
  speed: 1,
  turns: "auto",
  silence_ms: null,
  eagerness: "auto",
  path: "",
});

const TURNS = ["auto", "server_vad", "semantic_vad", "manual"];
const EAGERNESS = ["auto", "low", "medium", "high"];
const PATHS = ["", "relay", "cascade", "draft"]; // the server’s own, or one of these
const MAX_TEXT = 4000;

const number = (least, most) => (text) => {
  const value = Number(text);
  return text.trim() !== "" && value >= least && value <= most ? value : undefined;
};
const oneOf = (names) => (text) => (names.includes(text) ? text : undefined);
const text = (value) => value.trim().slice(0, MAX_TEXT);

/** How each setting is read: the value, or undefined for what cannot be used. */
const READ = {
  instructions: text,
  voice: text,
  speed: number(0.25, 1.5),
  turns: oneOf(TURNS),
  silence_ms: number(50, 10_000),
  eagerness: oneOf(EAGERNESS),
  path: oneOf(PATHS),
};

/** Settings from text by name (of an address or of a form); what is missing or cannot be used keeps its default. */
export function readSettings(given) {
  const settings = { ...DEFAULTS };
  for (const [name, read] of Object.entries(READ)) {
    const said = given.get(name);
    if (said !== null && said !== undefined) settings[name] = read(said) ?? DEFAULTS[name];
  }
  return settings;
}

/** The page's address with these settings in it; only what differs from the defaults, and all else untouched. */
export function withSettings(pageUrl, settings) {
  const url = new URL(pageUrl);
  for (const name of Object.keys(DEFAULTS)) {
    if (settings[name] === DEFAULTS[name]) url.searchParams.delete(name);
    else url.searchParams.set(name, settings[name]);
  }
  return url.href;
}

/**
 * `turn_detection` of a session with these settings; null when the user ends turns by hand.
 *
 * `served` is what the server began with, once it has told: its own choice. Undefined leaves it.
 */
export function turnDetection({ turns, silence_ms: silenceMs, eagerness }, served = undefined) {
  if (turns === "manual") return null;
  if (turns === "semantic_vad") return { type: turns, eagerness };
  if (silenceMs !== null) return { type: "server_vad", silence_duration_ms: silenceMs };
  return turns === "auto" ? served : { type: turns };
}

/** What `session.relay` says of the path: one of those that the server offers, or null for its own; {} where it has one. */
export function replyPath({ path }, paths) {
  if (paths.length < 2) return {};
  return { path: paths.includes(path) ? path : null };
}
