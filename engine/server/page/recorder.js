// Recording from the microphone.

const TYPES = { "audio/webm;codecs=opus": "webm", "audio/mp4": "m4a", "audio/ogg;codecs=opus": "ogg" };

// What calls filter away as noise or echo, a recognizer may need.
const SOUND = { echoCancellation: false, noiseSuppression: false, channelCount: 1 };

const REASONS = {
  NotAllowedError: "The browser denied the microphone. Allow it for this page in the address bar, then record again.",
  NotFoundError: "No microphone was found. Connect one, then record again.",
  NotReadableError: "Another program holds the microphone. Close it, then record again.",
};

export class Recorder {
  #media = null;
  #stream = null;
  #whole = null; // promise of the recording, which comes as one piece at its end

  get isOn() {
    return this.#media !== null;
  }

  // Begin; `onLevel` gets the loudness, 0 to 1, and the seconds so far, with every frame of the screen.
  async start(onLevel) {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers give the microphone only to pages on HTTPS or localhost. Choose a file instead.");
    }
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ audio: SOUND });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The microphone does not start: ${error.message}`, { cause: error });
    }
    const mimeType = Object.keys(TYPES).find((type) => MediaRecorder.isTypeSupported(type));
    this.#media = new MediaRecorder(this.#stream, { mimeType });
    this.#whole = new Promise((done) => this.#media.addEventListener("dataavailable", done, { once: true }));
    this.#media.start();
    this.#watch(onLevel);
  }

  // End, and return the recording as a file.
  async stop() {
    const media = this.#media;
    this.discard();
    const { data } = await this.#whole;
    const type = media.mimeType;
    const ending = Object.entries(TYPES).find(([known]) => known.startsWith(type.split(";")[0]))?.[1] ?? "webm";
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
    return new File([data], `Recording ${time}.${ending}`, { type });
  }

  // End without a recording.
  discard() {
    if (this.#media.state === "recording") this.#media.stop(); // not where the microphone has gone
    this.#media = null;
    for (const track of this.#stream.getTracks()) track.stop();
  }

  #watch(onLevel) {
    const context = new AudioContext();
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(this.#stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const start = performance.now();
    const media = this.#media;
    const look = () => {
      if (this.#media !== media) return context.close();
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      onLevel(Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 5)), (performance.now() - start) / 1000);
      return requestAnimationFrame(look);
    };
    look();
  }
}
