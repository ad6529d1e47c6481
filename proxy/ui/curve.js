// How fast a job is: a small curve of the last polls.

import { drawing, number } from "./show.js";

/** Points at most, points that there is room for at once, and polls between which a rate is taken. */
const MOST = 90;
const ROOM = 30;
const APART = 3;
const WIDTH = 240;
const HEIGHT = 40;

export class Curve {
  // How far the job was at the last polls, oldest first, and its rates between them: never more than MOST.
  #seen = [];
  #rates = [];

  constructor() {
    this.line = drawing("polyline", { points: "" });
    this.drawn = drawing(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "curve", role: "img", "aria-label": "No rate yet" },
      this.line,
    );
  }

  /** Adds how far the job is: resources, and bytes of its sources if it has such. */
  add(resources, bytes) {
    const now = { at: performance.now() / 1000, resources, bytes };
    const last = this.#seen.at(-1);
    if (last && resources < last.resources) {
      this.#seen = [];
      this.#rates = [];
    }
    this.#seen.push(now);
    if (this.#seen.length > APART + 1) this.#seen.shift();
    const first = this.#seen[0];
    const seconds = now.at - first.at;
    if (seconds <= 0) return;
    this.#rates.push((resources - first.resources) / seconds);
    if (this.#rates.length > MOST) this.#rates.shift();
    this.bytesASecond = bytes === undefined ? undefined : (bytes - first.bytes) / seconds;
    this.#draw();
  }

  /** The last rate, in resources a second. */
  get rate() {
    return this.#rates.at(-1);
  }

  #draw() {
    const most = Math.max(1, ...this.#rates);
    const step = WIDTH / (Math.max(ROOM, this.#rates.length) - 1);
    // What is new comes in at the right.
    const left = WIDTH - step * (this.#rates.length - 1);
    const point = (rate, at) => `${(left + at * step).toFixed(1)},${(HEIGHT - 2 - (rate / most) * (HEIGHT - 4)).toFixed(1)}`;
    this.line.setAttribute("points", this.#rates.map(point).join(" "));
    const label = `${number(Math.round(this.rate))} resources a second, at most ${number(Math.round(most))}`;
    this.drawn.setAttribute("aria-label", label);
  }
}
