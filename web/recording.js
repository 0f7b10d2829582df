// The conversation as sound, for the one who had it: the microphone on the left, what was played on the right, on the
// sound card's own clock. It stays in this page's memory until it is downloaded.
//
// Pure: frames and playback events in, the bytes of a WAV file out. Positions are samples at 24 kHz from the start.

const WIRE_HZ = 24000;
const CHUNK_SAMPLES = 10 * WIRE_HZ;
const MAX_CHUNKS = 90; // fifteen minutes, 86 MB: what a telephone can spare
const SNAP_SAMPLES = 480; // what lies this near to the end of the last piece follows it without a gap
const HEADER_BYTES = 44;
const CHANNELS = 2;

/** One side's place in the recording. */
class Track {
  next = 0;

  constructor(channel) {
    this.channel = channel;
  }
}

export class Recording {
  #chunks = new Map(); // number -> [samples, 2] int16, interleaved
  #microphone = new Track(0);
  #speaker = new Track(1);
  #replies = new Map(); // key -> what has come and was not played yet: {played, pieces: [{first, pcm}]}
  #contextHz = WIRE_HZ;
  #origin = 0; // where the first frame of the sound card's clock lies
  #end = 0;

  /** A sound card's clock begins to count from zero at `contextHz`: it follows what has been recorded. */
  begin(contextHz) {
    this.#contextHz = contextHz;
    this.#origin = this.#end;
    this.#replies.clear();
  }

  /** Where the recording begins: later than 0 when the beginning was dropped to bound it. */
  get firstSample() {
    return this.#chunks.size === 0 ? 0 : Math.min(...this.#chunks.keys()) * CHUNK_SAMPLES;
  }

  /** How much is there, in seconds. */
  get seconds() {
    return Math.max(0, this.#end - this.firstSample) / WIRE_HZ;
  }

  /** Where a frame of the sound card's clock lies. */
  at(frame) {
    return this.#origin + Math.round((frame * WIRE_HZ) / this.#contextHz);
  }

  /** Takes [samples] int16 from the microphone; `frame` is the sound card's clock at their end. */
  microphone(pcm, frame) {
    this.#write(this.#microphone, this.at(frame) - pcm.length, pcm);
  }

  /** Takes [samples] int16 of reply `key`, beginning at position `first` of its output; they may never be played. */
  received(key, first, pcm) {
    if (!this.#replies.has(key)) this.#replies.set(key, { played: 0, pieces: [] });
    this.#replies.get(key).pieces.push({ first, pcm: pcm.slice() });
  }

  /** Reply `key` was played up to its sample `played` when the sound card's clock stood at `frame`. */
  played(key, played, frame) {
    const reply = this.#replies.get(key);
    if (!reply) return;
    const end = this.at(frame);
    for (const { first, pcm } of reply.pieces) {
      const from = Math.max(0, reply.played - first);
      const to = Math.min(pcm.length, played - first);
      if (from < to) this.#write(this.#speaker, end - (played - first - from), pcm.subarray(from, to));
    }
    reply.pieces = reply.pieces.filter(({ first, pcm }) => first + pcm.length > played);
    reply.played = Math.max(reply.played, played);
  }

  /** Nothing more of reply `key` will be played. */
  finished(key) {
    this.#replies.delete(key);
  }

  /** A WAV file, stereo 16 bits, as parts for a Blob. */
  wav() {
    const first = this.firstSample;
    const parts = [header(this.#end - first)];
    for (let at = first; at < this.#end; at += CHUNK_SAMPLES) {
      const chunk = this.#chunks.get(at / CHUNK_SAMPLES) ?? new Int16Array(CHUNK_SAMPLES * CHANNELS);
      parts.push(littleEndian(chunk.subarray(0, CHANNELS * Math.min(CHUNK_SAMPLES, this.#end - at))));
    }
    return parts;
  }

  #write(track, at, pcm) {
    const start = Math.max(0, Math.abs(at - track.next) <= SNAP_SAMPLES ? track.next : at);
    for (let done = 0; done < pcm.length;) {
      const chunk = this.#chunk(Math.floor((start + done) / CHUNK_SAMPLES));
      const offset = (start + done) % CHUNK_SAMPLES;
      const count = Math.min(pcm.length - done, CHUNK_SAMPLES - offset);
      for (let i = 0; i < count; i += 1) chunk[CHANNELS * (offset + i) + track.channel] = pcm[done + i];
      done += count;
    }
    track.next = start + pcm.length;
    this.#end = Math.max(this.#end, track.next);
  }

  #chunk(number) {
    let chunk = this.#chunks.get(number);
    if (!chunk) {
      chunk = new Int16Array(CHUNK_SAMPLES * CHANNELS);
      this.#chunks.set(number, chunk);
      for (const old of this.#chunks.keys()) if (old <= number - MAX_CHUNKS) this.#chunks.delete(old);
    }
    return chunk;
  }
}

/** The header of a WAV file with so many samples a channel (RIFF, PCM). */
function header(samples) {
  const bytes = samples * CHANNELS * 2;
  const view = new DataView(new ArrayBuffer(HEADER_BYTES));
  const name = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  name(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  name(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, CHANNELS, true);
  view.setUint32(24, WIRE_HZ, true);
  view.setUint32(28, WIRE_HZ * CHANNELS * 2, true);
  view.setUint16(32, CHANNELS * 2, true);
  view.setUint16(34, 16, true);
  name(36, "data");
  view.setUint32(40, bytes, true);
  return view.buffer;
}

/** The samples as a WAV file holds them, on machines of either byte order. */
function littleEndian(samples) {
  const view = new DataView(new ArrayBuffer(samples.length * 2));
  samples.forEach((sample, i) => view.setInt16(2 * i, sample, true));
  return view.buffer;
}
