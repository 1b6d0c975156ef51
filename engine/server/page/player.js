// Player of one recording: spectrogram, position, and keys.

import { analyze, decode, describe, draw } from "./spectrogram.js";

// Longer or larger ones get no spectrogram, since a browser decodes a file as a whole: 64 kB a second and channel.
const MAX_SECONDS = 1800;
const MAX_BYTES = 256 * 2 ** 20;
const LONG_STEP = 10; // seconds of a page key
const SHORT_STEP = 2; // seconds of an arrow where no words have times
const dark = matchMedia("(prefers-color-scheme: dark)");

export const clock = (time) => {
  const whole = Math.max(0, Math.floor(time));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pad = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${pad(minutes)}:${pad(rest)}` : `${minutes}:${pad(rest)}`;
};

export class Player {
  #audio = new Audio();
  #url;
  #levels = null;
  #ended = new AbortController();

  constructor(root, file, transcript) {
    this.root = root;
    this.file = file;
    this.transcript = transcript;
    this.duration = 0;
    this.slider = root.querySelector(".slider");
    this.button = root.querySelector(".play");
    this.canvas = root.querySelector("canvas");
    this.caption = root.querySelector("figcaption");
    this.#url = URL.createObjectURL(file);
    this.#listen();
    this.#audio.src = this.#url;
  }

  // Free the file's memory.
  close() {
    this.#ended.abort();
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    URL.revokeObjectURL(this.#url);
  }

  pause() {
    this.#audio.pause();
  }

  seek(time) {
    this.#audio.currentTime = Math.min(Math.max(0, time), this.duration);
    this.#show();
  }

  toggle() {
    if (this.#audio.paused) this.#audio.play().catch(() => {});
    else this.#audio.pause();
  }

  #listen() {
    const { signal } = this.#ended;
    const on = (target, name, listener) => target.addEventListener(name, listener, { signal });
    on(this.#audio, "durationchange", () => this.#measure());
    on(this.#audio, "play", () => this.#playing(true));
    on(this.#audio, "pause", () => this.#playing(false));
    on(this.#audio, "seeked", () => this.#show());
    on(this.#audio, "error", () => {
      this.caption.textContent = "This browser cannot play the file.";
      this.root.classList.add("broken");
      this.root.hidden = false;
    });
    on(this.button, "click", () => this.toggle());
    on(this.slider, "keydown", (event) => this.#press(event));
    on(this.slider, "pointerdown", (event) => this.#drag(event));
    on(this.slider, "pointermove", (event) => event.buttons && this.#drag(event));
    on(dark, "change", () => this.#levels && draw(this.canvas, this.#levels));
  }

  #measure() {
    const { duration } = this.#audio;
    if (duration === Infinity) {
      // A browser's own recording does not know its length until it has been sought to its end.
      this.#audio.currentTime = 1e9;
      return;
    }
    if (!duration || this.duration) return;
    this.duration = duration;
    this.slider.setAttribute("aria-valuemax", duration.toFixed(2));
    this.root.hidden = false;
    this.seek(0);
    this.#paint();
  }

  async #paint() {
    if (this.duration > MAX_SECONDS || this.file.size > MAX_BYTES) {
      this.caption.textContent = "Too long for a spectrogram.";
      return;
    }
    try {
      const samples = await decode(this.file);
      this.#levels = await analyze(samples, this.#ended.signal);
      draw(this.canvas, this.#levels);
      this.canvas.setAttribute("aria-label", describe(samples));
      this.canvas.classList.add("drawn");
      this.caption.textContent = "50 Hz to 8 kHz";
    } catch {
      this.caption.textContent = "This browser cannot draw the file.";
    }
  }

  #playing(is) {
    this.root.classList.toggle("playing", is);
    this.button.setAttribute("aria-label", is ? "Pause" : "Play");
    if (is) this.#follow();
  }

  #follow() {
    this.#show();
    if (!this.#audio.paused) requestAnimationFrame(() => this.#follow());
  }

  #show() {
    const time = Math.min(this.#audio.currentTime, this.duration);
    const said = this.transcript.light(time, !this.#audio.paused);
    this.slider.style.setProperty("--position", this.duration ? time / this.duration : 0);
    this.slider.setAttribute("aria-valuenow", time.toFixed(2));
    this.slider.setAttribute("aria-valuetext", `${clock(time)} of ${clock(this.duration)}${said && `, ${said}`}`);
    this.root.querySelector(".clock").textContent = `${clock(time)} / ${clock(this.duration)}`;
  }

  #press(event) {
    const time = this.#audio.currentTime;
    const step = (backwards) => this.transcript.next(time, backwards) ?? time + (backwards ? -SHORT_STEP : SHORT_STEP);
    const actions = {
      " ": () => this.toggle(),
      ArrowRight: () => this.seek(step(false)),
      ArrowUp: () => this.seek(step(false)),
      ArrowLeft: () => this.seek(step(true)),
      ArrowDown: () => this.seek(step(true)),
      PageUp: () => this.seek(time + LONG_STEP),
      PageDown: () => this.seek(time - LONG_STEP),
      Home: () => this.seek(0),
      End: () => this.seek(this.duration),
    };
    if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  }

  #drag(event) {
    const box = this.slider.getBoundingClientRect();
    this.slider.setPointerCapture(event.pointerId);
    this.seek(((event.clientX - box.left) / box.width) * this.duration);
  }
}
