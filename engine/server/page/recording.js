// One recording of the list: its request, its result, and its row.

import * as api from "./api.js";
import { Player } from "./player.js";
import { stretches, Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

// A browser opens six connections to a server. Two stay free, for downloads and the engine's numbers.
const MAX_REQUESTS = 4;
const TYPES = { srt: "application/x-subrip", vtt: "text/vtt", json: "application/json", txt: "text/plain" };

let count = 0; // of recordings so far, for their ids
const turns = new Turns(MAX_REQUESTS);

export class Recording {
  #abort = null; // of the request under way
  #removed = new AbortController();
  #player = null;
  #formats = new Map(); // answers of the server
  #timing = null; // promise of times, once asked for
  #text = "";

  // `onEnded` is called at the end of a request, `onRemoved` before the row goes.
  constructor(file, model, { onEnded, onRemoved }) {
    this.file = file;
    this.model = model;
    this.onEnded = onEnded;
    this.onRemoved = onRemoved;
    const template = document.querySelector("template#recording");
    this.row = template.content.cloneNode(true).firstElementChild;
    this.row.querySelector(".name").textContent = file.name;
    this.transcript = new Transcript(this.#part(".transcript"), (time) => this.#player?.seek(time));
    this.#part(".panel").id = `recording-${++count}`;
    this.#part(".open").setAttribute("aria-controls", `recording-${count}`);
    this.#part(".again").setAttribute("aria-label", `Try again: ${file.name}`);
    this.#listen();
  }

  get text() {
    return this.#text;
  }

  get state() {
    return this.row.dataset.state;
  }

  get busy() {
    return this.#abort !== null;
  }

  get isOpen() {
    return !this.#part(".panel").hidden;
  }

  // Send the file, and show its text as it is decoded.
  async transcribe() {
    const abort = (this.#abort = new AbortController());
    this.#fail("");
    this.#say("");
    this.#become("waiting", "Waiting");
    try {
      await turns.take(() => this.#stream(abort.signal), abort.signal);
    } catch (error) {
      if (abort.signal.aborted) {
        this.#become("cancelled", "Cancelled");
      } else {
        this.#become("failed", "Failed");
        this.#fail(error.message);
      }
    } finally {
      this.#abort = null;
      this.#buttons();
      this.onEnded(this);
    }
    this.#askForTimes();
  }

  // Show text, player and downloads.
  open() {
    this.#part(".panel").hidden = false;
    this.#part(".open").setAttribute("aria-expanded", "true");
    this.#player ??= new Player(this.#part(".player"), this.file, this.transcript);
    this.#askForTimes();
  }

  close() {
    this.#part(".panel").hidden = true;
    this.#part(".open").setAttribute("aria-expanded", "false");
    this.#player?.pause();
  }

  cancel() {
    this.#abort?.abort();
  }

  #part(selector) {
    return this.row.querySelector(selector);
  }

  #listen() {
    this.#part(".open").addEventListener("click", () => (this.isOpen ? this.close() : this.open()));
    this.#part(".again").addEventListener("click", () => {
      this.transcribe();
      this.#part(".stop").focus();
    });
    this.#part(".stop").addEventListener("click", () => (this.busy ? this.cancel() : this.#remove()));
    this.#part(".downloads").addEventListener("click", ({ target }) => {
      if (target.dataset.format) this.#download(target);
    });
  }

  #remove() {
    this.#removed.abort();
    this.#player?.close();
    this.onRemoved(this);
    this.row.remove();
  }

  async #stream(signal) {
    this.#become("decoding", "Transcribing");
    const start = performance.now();
    for await (const event of api.stream(this.file, this.model.id, signal)) {
      this.#say(event.text ?? this.#text + event.delta);
    }
    this.#become("done", `${this.model.id}, ${((performance.now() - start) / 1000).toFixed(2)} s`);
  }

  // Ask once for times, which take a second decoding, when the result is first looked at.
  #askForTimes() {
    if (this.isOpen && this.state === "done") this.#timing ??= this.#time();
  }

  // Give the text its times; where the server has none it stands alone.
  async #time() {
    const { id, timestamp_granularities: granularities } = this.model;
    const { signal } = this.#removed;
    const json = await api.transcription(this.file, id, "verbose_json", signal, granularities).catch(() => null);
    if (json === null) {
      this.#timing = null; // asked for again when it is opened again
      return;
    }
    this.#formats.set("json", json);
    const verbose = JSON.parse(json);
    this.#say(verbose.text);
    this.transcript.time(verbose.text, stretches(verbose));
  }

  async #download(button) {
    const { format } = button.dataset;
    button.disabled = true;
    this.#fail("");
    try {
      save(await this.#formatted(format), `${this.file.name.replace(/\.[^.]+$/, "")}.${format}`, TYPES[format]);
    } catch (error) {
      this.#fail(error.message);
    } finally {
      button.disabled = false;
      button.focus();
    }
  }

  // The result in one of the server's formats. Text and JSON are here already; subtitles are laid out by the server.
  async #formatted(format) {
    if (format === "json") await this.#timing; // whose answer it is
    if (format === "txt") return `${this.#text.trim()}\n`;
    if (!this.#formats.has(format)) {
      this.#formats.set(format, await api.transcription(this.file, this.model.id, format, this.#removed.signal));
    }
    return this.#formats.get(format);
  }

  #say(text) {
    this.#text = text;
    this.transcript.show(text);
    this.#part(".preview").textContent = text;
  }

  #fail(message) {
    this.#part(".error").textContent = message;
  }

  #become(state, facts) {
    this.row.dataset.state = state;
    this.#part(".facts").textContent = facts;
    this.#buttons();
  }

  #buttons() {
    const stop = this.#part(".stop");
    stop.textContent = this.busy ? "Cancel" : "Remove";
    stop.setAttribute("aria-label", `${stop.textContent} ${this.file.name}`);
    this.#part(".again").hidden = this.busy || this.state === "done";
    this.#part(".downloads").hidden = this.state !== "done";
  }
}

function save(text, name, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
