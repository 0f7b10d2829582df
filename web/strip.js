// The last seconds of both voices, as a strip of levels.

const COLUMN_PX = 4;
const FLOOR_DB = -60;
const LABEL_EVERY = 15; // columns: a number that changes 25 times a second can be neither read nor spoken

/** The last seconds of both voices: the user's above the line, the reply's below. */
export class Strip {
  #canvas = document.getElementById("strip");
  #meter = document.getElementById("levels");
  #level = document.getElementById("level"); // the meter in the settings
  #columns = [];
  #user = 0;
  #reply = 0;
  #ticks = 0;

  /** Takes root-mean-square levels in [0, 1] whenever they are known; the loudest until `draw` counts. */
  user(level) {
    this.#user = Math.max(this.#user, level);
  }

  reply(level) {
    this.#reply = Math.max(this.#reply, level);
  }

  /** Adds a column and draws. With reduced motion nothing scrolls: two bars show the levels of this moment. */
  draw() {
    const column = [height(this.#user), height(this.#reply)];
    this.#ticks += 1;
    this.#level.value = column[0];
    if (this.#ticks % LABEL_EVERY === 0) this.#meter.setAttribute("aria-valuenow", String(Math.round(100 * column[0])));
    this.#user = this.#reply = 0;
    const scale = window.devicePixelRatio;
    const { clientWidth, clientHeight } = this.#canvas;
    const width = Math.round(clientWidth * scale);
    if (this.#canvas.width !== width) {
      this.#canvas.width = width;
      this.#canvas.height = Math.round(clientHeight * scale);
    }
    const paint = this.#canvas.getContext("2d");
    const style = getComputedStyle(this.#canvas);
    const colours = [style.getPropertyValue("--you"), style.getPropertyValue("--relay")];
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, clientWidth, clientHeight);
    const middle = clientHeight / 2;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      column.forEach((size, lane) => {
        paint.fillStyle = colours[lane];
        paint.fillRect(0, lane === 0 ? middle - 6 : middle + 2, Math.max(2, clientWidth * size), 4);
      });
      return;
    }
    this.#columns.push(column);
    this.#columns = this.#columns.slice(-Math.ceil(clientWidth / COLUMN_PX));
    const left = clientWidth - this.#columns.length * COLUMN_PX;
    for (const lane of [0, 1]) {
      paint.fillStyle = colours[lane];
      this.#columns.forEach((levels, i) => {
        const size = Math.max(1, levels[lane] * (middle - 2));
        paint.fillRect(left + i * COLUMN_PX, lane === 0 ? middle - 1 - size : middle + 1, COLUMN_PX - 1, size);
      });
    }
  }
}

/** A level as a fraction of the lane: 0 at -60 dBFS, 1 at 0 dBFS. */
function height(level) {
  return level > 0 ? Math.max(0, 1 - (20 * Math.log10(level)) / FLOOR_DB) : 0;
}
