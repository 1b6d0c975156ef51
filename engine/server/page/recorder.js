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
  #pieces = [];

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
    this.#pieces = [];
    this.#media = new MediaRecorder(this.#stream, { mimeType });
    this.#media.addEventListener("dataavailable", ({ data }) => this.#pieces.push(data));
    this.#media.start();
    this.#watch(onLevel);
  }

  // End, and return the recording as a file.
  async stop() {
    const media = this.#media;
    await new Promise((done) => {
      media.addEventListener("stop", done, { once: true });
      media.stop();
    });
    this.discard();
    const type = media.mimeType;
    const ending = Object.entries(TYPES).find(([known]) => known.startsWith(type.split(";")[0]))?.[1] ?? "webm";
    const time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
    return new File(this.#pieces, `Recording ${time}.${ending}`, { type });
  }

  // End without a recording.
  discard() {
    if (this.#media?.state === "recording") this.#media.stop();
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#media = null;
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
