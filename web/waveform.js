// The shape of a reply's sound: how loud each hundredth of a second is, and the drawing of it. Positions are samples at
// 24 kHz.

export const PEAK_SAMPLES = 240; // 10 ms
const LEAST_SAMPLES = 2 * 24000; // a waveform as wide as the page is at least this long

/** The loudest sample of every 10 ms of a reply. */
export class Peaks {
  #peaks = [];
  #samples = 0;

  /** How much sound has come, in samples. */
  get samples() {
    return this.#samples;
  }

  /** Peaks in [0, 1], one for every 10 ms that has begun. */
  get values() {
    return this.#peaks;
  }

  /** Takes [samples] int16 that begin at `first`. */
  add(first, pcm) {
    for (let i = 0; i < pcm.length; i += 1) {
      const at = Math.floor((first + i) / PEAK_SAMPLES);
      while (this.#peaks.length <= at) this.#peaks.push(0);
      this.#peaks[at] = Math.max(this.#peaks[at], Math.abs(pcm[i]) / 32768);
    }
    this.#samples = Math.max(this.#samples, first + pcm.length);
  }
}

/**
 * The columns of a waveform: `{x, height, part}` in pixels, `height` in [0, 1] of the whole.
 *
 * `part` is draft (spoken from the draft), heard, ahead (still to come) or unheard (never will be). The whole width
 * stands for all sound that has come, or for two seconds if it is less.
 */
export function columns({ values, samples }, { width, step, played, joined, cut }) {
  const perPixel = Math.max(samples, LEAST_SAMPLES) / width;
  const found = [];
  for (let x = 0; x * perPixel < samples && x < width; x += step) {
    const from = Math.floor((x * perPixel) / PEAK_SAMPLES);
    const to = Math.max(from + 1, Math.floor(((x + step) * perPixel) / PEAK_SAMPLES));
    const at = (x + step / 2) * perPixel;
    const rest = at <= played ? (at <= joined ? "draft" : "heard") : cut ? "unheard" : "ahead";
    found.push({ x, height: Math.max(0, ...values.slice(from, to)), part: rest });
  }
  return found;
}

const STEP_PX = 3;
const COLOURS = { draft: "--draft", heard: "--relay", ahead: "--ahead", unheard: "--ahead" };

/** Draws the waveform of `turn` on a canvas, with the position that has been played; the end of the draft is dotted. */
export function drawWave(canvas, turn) {
  const { clientWidth: width, clientHeight: height } = canvas;
  if (width === 0) return; // not shown
  const scale = window.devicePixelRatio;
  const size = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const paint = canvas.getContext("2d");
  const style = getComputedStyle(canvas);
  paint.setTransform(scale, 0, 0, scale, 0, 0);
  paint.clearRect(0, 0, width, height);
  const middle = height / 2;
  for (const column of columns(turn.peaks, { width, step: STEP_PX, ...turn.position })) {
    const half = Math.max(0.5, Math.sqrt(column.height) * (middle - 1)); // the root: quiet sounds are seen, too
    paint.fillStyle = style.getPropertyValue(COLOURS[column.part]);
    paint.globalAlpha = column.part === "unheard" ? 0.6 : 1;
    paint.fillRect(column.x, middle - half, STEP_PX - 1, 2 * half);
  }
  paint.globalAlpha = 1;
  const line = (at, colour, from, length) => {
    paint.fillStyle = style.getPropertyValue(colour);
    paint.fillRect(Math.round((at * width) / Math.max(turn.peaks.samples, LEAST_SAMPLES)), from, 1.5, length);
  };
  if (turn.joinedAt) for (let y = 0; y < height; y += 4) line(turn.joinedAt, "--draft", y, 2);
  if (!turn.over) line(turn.played, "--ink", 0, height);
}
