// Live numbers of the engine, from GET /health and GET /metrics.

import * as api from "./api.js";

const PERIOD = 1000; // ms
const SPAN = 5000; // ms over which speed is measured

// Sum, or maximum, of a metric over the models.
function read(text, name) {
  const values = [...text.matchAll(new RegExp(`^tritone:${name}(?:\\{.*\\})? (\\S+)`, "gm"))].map((found) => +found[1]);
  return values.length ? { sum: values.reduce((a, b) => a + b), most: Math.max(...values) } : null;
}

export class Numbers {
  #closedFor; // the key, or null for none, with which the server has refused them
  #history = []; // {time, audio}

  constructor(root) {
    this.root = root;
  }

  async start() {
    for (;;) {
      if (!document.hidden && this.#closedFor !== api.key()) await this.#look();
      await new Promise((done) => setTimeout(done, PERIOD));
    }
  }

  async #look() {
    try {
      const [health, metrics] = await Promise.all([api.health(), api.metrics()]);
      if (!health || !metrics) this.#closedFor = api.key();
      this.#showHealth(health?.status ?? "–", health?.models ?? {});
      this.#showMetrics(metrics);
    } catch {
      this.#showHealth("away", {});
    }
  }

  #showHealth(status, models) {
    const reasons = Object.entries(models).map(([name, { reason }]) => reason && `${name}: ${reason}`);
    this.#show("health", status);
    this.root.dataset.health = status;
    this.root.querySelector(".health").title = reasons.filter(Boolean).join("\n");
  }

  #showMetrics(text) {
    this.root.classList.toggle("closed", !text);
    if (!text) return;
    this.#show("running", read(text, "num_requests_running")?.sum);
    this.#show("waiting", read(text, "num_requests_waiting")?.sum);
    const cache = read(text, "kv_cache_usage_perc")?.most;
    this.#show("cache", cache === undefined ? cache : `${Math.round(100 * cache)} %`);
    const speed = this.#speed(read(text, "audio_seconds_total")?.sum);
    this.#show("speed", speed === undefined ? speed : `${speed.toFixed(1)}×`);
  }

  // Seconds of audio transcribed in a second, over the last few.
  #speed(audio) {
    if (audio === undefined) return undefined;
    const time = performance.now();
    if (audio < this.#history.at(-1)?.audio) this.#history = []; // the server has started anew
    this.#history.push({ time, audio });
    while (this.#history[0].time < time - SPAN - PERIOD) this.#history.shift();
    const first = this.#history[0];
    return time > first.time ? (1000 * (audio - first.audio)) / (time - first.time) : 0;
  }

  #show(name, value) {
    const text = String(value ?? "–");
    const element = this.root.querySelector(`[data-number=${name}]`);
    if (element.textContent !== text) element.textContent = text;
  }
}
