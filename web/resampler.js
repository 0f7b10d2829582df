// Streaming sample-rate conversion by a rational factor: a windowed-sinc low-pass in polyphase form.
//
// Method: Crochiere & Rabiner, "Multirate Digital Signal Processing", section 2.3; window and length after Kaiser.
// Both audio worklets use it, and Node runs the same code in the tests. It touches nothing of the browser.

const STOPBAND_DB = 80;
const PASSBAND = 0.875; // of the lower Nyquist frequency: 10.5 kHz at 24 kHz; the stopband begins at Nyquist itself

/** Modified Bessel function of the first kind, order zero, by its power series. */
function besselI0(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/**
 * The filter's polyphase table: `phases` rows of `2 * half` coefficients, row p for an output that lies p / phases of
 * an input sample after its centre. Every row sums to 1, so a constant stays that constant.
 */
function polyphase(inputHz, outputHz, phases) {
  const nyquistHz = Math.min(inputHz, outputHz) / 2;
  const transition = ((1 - PASSBAND) * nyquistHz) / inputHz;
  const cutoff = ((1 + PASSBAND) * nyquistHz) / inputHz; // 6 dB point, as a fraction of the input's Nyquist frequency
  const half = Math.ceil((STOPBAND_DB - 7.95) / (14.36 * transition) / 2);
  const beta = 0.1102 * (STOPBAND_DB - 8.7);
  const table = new Float32Array(phases * 2 * half);
  for (let phase = 0; phase < phases; phase += 1) {
    const row = new Float64Array(2 * half);
    let sum = 0;
    for (let tap = 0; tap < 2 * half; tap += 1) {
      const t = tap - half + 1 - phase / phases; // input samples between this tap and the output
      const x = Math.PI * cutoff * t;
      const edge = t / half;
      const window = Math.abs(edge) >= 1 ? 0 : besselI0(beta * Math.sqrt(1 - edge * edge)) / besselI0(beta);
      row[tap] = (x === 0 ? 1 : Math.sin(x) / x) * window;
      sum += row[tap];
    }
    for (let tap = 0; tap < 2 * half; tap += 1) table[phase * 2 * half + tap] = row[tap] / sum;
  }
  return { half, table };
}

/**
 * Converts a stream in pieces of any size; the output does not depend on how the input was cut.
 *
 * Output k lies exactly at input time k * inputHz / outputHz: the filter looks `half` samples ahead instead of
 * delaying, so that positions in the output are positions in the input.
 */
export class Resampler {
  #up;
  #down;
  #half;
  #table;
  #buffer; // input from absolute index #base on; the first #half - 1 samples before the stream are zeros
  #length;
  #base;
  #centre = 0; // the next output lies at input index #centre + #phase / #up
  #phase = 0;
  #pushed = 0;
  #finished = false;

  /** @param {number} inputHz whole number  @param {number} outputHz whole number */
  constructor(inputHz, outputHz) {
    const divisor = greatestCommonDivisor(inputHz, outputHz);
    this.#up = outputHz / divisor;
    this.#down = inputHz / divisor;
    if (inputHz === outputHz) {
      this.#half = 1;
      this.#table = Float32Array.of(1, 0);
    } else {
      const { half, table } = polyphase(inputHz, outputHz, this.#up);
      this.#half = half;
      this.#table = table;
    }
    this.#length = this.#half - 1;
    this.#base = -this.#length;
    this.#buffer = new Float32Array(4096 + 2 * this.#half);
  }

  /** Input samples played so far: those that lie before the next output. */
  get position() {
    const position = this.#centre + (this.#phase > 0 ? 1 : 0);
    return Math.min(position, this.#pushed);
  }

  /** Input samples given but not yet played. */
  get buffered() {
    return this.#pushed - this.position;
  }

  /** Whether the input was declared complete and all of it was read. */
  get done() {
    return this.#finished && this.#centre >= this.#pushed;
  }

  /** Appends input, [samples] Float32Array. */
  push(samples) {
    this.#append(samples.length).set(samples);
    this.#pushed += samples.length;
  }

  /** Declares the input complete: what the filter still holds becomes readable. */
  finish() {
    if (this.#finished) return;
    this.#append(this.#half).fill(0);
    this.#finished = true;
  }

  /** Writes output into `out` from `start` up to `end` as far as the input allows; returns the number written. */
  read(out, start = 0, end = out.length) {
    const taps = 2 * this.#half;
    const limit = this.#finished ? this.#pushed : this.#base + this.#length - this.#half;
    let written = 0;
    while (start + written < end && this.#centre < limit) {
      const at = this.#centre - this.#half + 1 - this.#base;
      const row = this.#phase * taps;
      let sum = 0;
      for (let tap = 0; tap < taps; tap += 1) sum += this.#table[row + tap] * this.#buffer[at + tap];
      out[start + written] = sum;
      written += 1;
      this.#phase += this.#down;
      while (this.#phase >= this.#up) {
        this.#phase -= this.#up;
        this.#centre += 1;
      }
    }
    return written;
  }

  /** Room for `count` more samples at the end of the buffer, after input that no output needs any more was dropped. */
  #append(count) {
    const spent = Math.min(this.#centre - this.#half + 1 - this.#base, this.#length);
    if (spent > 0 && this.#length + count > this.#buffer.length) {
      this.#buffer.copyWithin(0, spent, this.#length);
      this.#length -= spent;
      this.#base += spent;
    }
    if (this.#length + count > this.#buffer.length) {
      const larger = new Float32Array(2 * (this.#length + count));
      larger.set(this.#buffer.subarray(0, this.#length));
      this.#buffer = larger;
    }
    const room = this.#buffer.subarray(this.#length, this.#length + count);
    this.#length += count;
    return room;
  }
}
