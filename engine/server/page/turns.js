// Turns of tasks that must not all run at once.

export class Turns {
  #free;
  #waiting = [];

  constructor(limit) {
    this.#free = limit;
  }

  // Run a task when it is its turn. A signal that aborts gives the place in the line up, and rejects.
  async take(task, signal) {
    if (this.#free > 0) this.#free--;
    else await this.#wait(signal); // ends with the turn of a task that has ended
    try {
      signal.throwIfAborted();
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }

  #wait(signal) {
    return new Promise((go, reject) => {
      this.#waiting.push(go);
      const leave = () => {
        this.#waiting = this.#waiting.filter((other) => other !== go);
        reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
    });
  }
}
