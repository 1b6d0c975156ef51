// Text of a transcription whose words, or segments, know their times.

// Stretches {text, start, end} of a verbose transcription: its words, else its segments, else none.
export function stretches(verbose) {
  const words = (verbose?.words ?? []).map(({ word, start, end }) => ({ text: word.trim(), start, end }));
  if (words.length) return words;
  return (verbose?.segments ?? []).map(({ text, start, end }) => ({ text: text.trim(), start, end }));
}

export class Transcript {
  #spans = []; // {element, start, end, text}
  #now = null; // the span that is lit
  #last = null; // the span that was lit last

  constructor(root, seek) {
    this.root = root;
    root.addEventListener("click", ({ target }) => {
      const span = this.#spans.find(({ element }) => element === target);
      if (span && getSelection().isCollapsed) seek(span.start);
    });
  }

  // Show text without times.
  show(text) {
    this.#spans = [];
    this.#now = this.#last = null;
    this.root.textContent = text;
  }

  // Give parts of the text their times. Words come without spaces, and in some models without punctuation; all
  // that lies between them stays as it is.
  time(text, parts) {
    this.show("");
    let end = 0;
    for (const part of parts) {
      const begin = part.text ? text.indexOf(part.text, end) : -1;
      if (begin < 0) continue; // a word that the text spells otherwise stays without time
      const element = document.createElement("span");
      element.textContent = part.text;
      this.root.append(text.slice(end, begin), element);
      this.#spans.push({ ...part, element });
      end = begin + part.text.length;
    }
    this.root.append(text.slice(end));
  }

  // Light up what is said at a time; returns its text. `follow` scrolls along, unless the reader has scrolled away.
  light(seconds, follow) {
    const span = this.#spans.findLast(({ start }) => start <= seconds + 0.001);
    const now = span && seconds < span.end ? span : null;
    if (now !== this.#now) {
      this.#now?.element.classList.remove("now");
      now?.element.classList.add("now");
      if (now && follow && (!this.#last || inView(this.#last.element))) now.element.scrollIntoView({ block: "nearest" });
      this.#now = now;
      this.#last = now ?? this.#last;
    }
    return now?.text ?? "";
  }

  // Start of the word after a time, or before it; null where there is none.
  next(seconds, backwards) {
    const span = backwards
      ? this.#spans.findLast(({ start }) => start < seconds - 0.05)
      : this.#spans.find(({ start }) => start > seconds + 0.005);
    return span?.start ?? null;
  }
}

function inView(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}
