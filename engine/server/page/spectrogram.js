// Spectrogram of a recording: log power on the mel scale, drawn column by column.

const RATE = 16000; // Hz
const SIZE = 1024; // samples of a transform
const WINDOW = 512; // samples of a frame, 32 ms; zeros fill the rest
const BANDS = 112; // rows, evenly spaced on the mel scale
const LOWEST = 50; // Hz
const HIGHEST = RATE / 2; // Hz
const RANGE = 65; // dB below the loudest that are drawn
const MAX_COLUMNS = 1200;
const MAX_FRAMES = 4; // transforms of a column; a long recording has columns of many frames
const PAUSE = 12; // ms of drawing before the page gets its turn

const HANN = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));

// Samples of a file at 16 kHz, its channels averaged. Rejects where the browser knows no decoder.
export async function decode(file) {
  const context = new OfflineAudioContext(1, 1, RATE);
  const audio = await context.decodeAudioData(await file.arrayBuffer());
  const samples = audio.getChannelData(0);
  for (let channel = 1; channel < audio.numberOfChannels; channel++) {
    const other = audio.getChannelData(channel);
    for (let i = 0; i < samples.length; i++) samples[i] += (other[i] - samples[i]) / (channel + 1);
  }
  return samples;
}

const seconds = (samples) => samples.length / RATE;

// Levels of a recording in dB, [columns][BANDS], lowest band first. `signal` ends the work early.
export async function analyze(samples, signal) {
  const columns = Math.max(1, Math.min(MAX_COLUMNS, Math.ceil(samples.length / (WINDOW / 4))));
  const hop = samples.length / columns;
  const frames = Math.max(1, Math.min(MAX_FRAMES, Math.floor(hop / (WINDOW / 2))));
  const edges = bandEdges();
  const levels = [];
  let rest = performance.now();
  for (let column = 0; column < columns; column++) {
    const power = new Float32Array(SIZE / 2 + 1);
    for (let frame = 0; frame < frames; frame++) {
      const middle = Math.floor(hop * (column + (frame + 0.5) / frames));
      addPower(power, samples, middle - WINDOW / 2);
    }
    levels.push(bandLevels(power, edges, frames));
    if (performance.now() - rest > PAUSE) {
      await new Promise((done) => setTimeout(done));
      if (signal.aborted) return levels;
      rest = performance.now();
    }
  }
  return levels;
}

// Draw levels in the theme's colors; the canvas gets a pixel for each level and the style sheet stretches it.
export function draw(canvas, levels) {
  const colors = palette(canvas);
  const loudest = maximum(levels.map(maximum));
  canvas.width = levels.length;
  canvas.height = BANDS;
  const image = new ImageData(levels.length, BANDS);
  const pixels = new Uint32Array(image.data.buffer);
  levels.forEach((bands, column) => {
    for (let band = 0; band < BANDS; band++) {
      const shade = Math.min(1, Math.max(0, 1 + (bands[band] - loudest) / RANGE));
      pixels[(BANDS - 1 - band) * levels.length + column] = colors[Math.round(shade * 255)];
    }
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// A sentence for those that do not see it.
export function describe(samples) {
  const blocks = Math.max(1, Math.round(seconds(samples) * 10));
  const size = samples.length / blocks;
  const energy = Array.from({ length: blocks }, (_, block) => {
    let sum = 0;
    for (let i = Math.floor(block * size); i < Math.floor((block + 1) * size); i++) sum += samples[i] * samples[i];
    return sum;
  });
  const peak = maximum(energy);
  const total = `Spectrogram of ${seconds(samples).toFixed(1)} seconds`;
  if (peak < 1e-6 * size) return `${total}: silence.`;
  const loud = energy.map((value) => value > peak / 300);
  const [first, last] = [loud.indexOf(true), loud.lastIndexOf(true) + 1];
  const quiet = Math.round((100 * loud.filter((is) => !is).length) / blocks);
  return (
    `${total}, 50 Hz to 8 kHz: sound from ${(first / 10).toFixed(1)} to ${(last / 10).toFixed(1)} seconds, ` +
    `loudest at ${(energy.indexOf(peak) / 10).toFixed(1)}, ${quiet} percent quiet.`
  );
}

const maximum = (values) => values.reduce((most, value) => Math.max(most, value), -Infinity);

// Bins of the transform at which bands begin; fractions, as low bands are narrower than a bin.
function bandEdges() {
  const mel = (hertz) => Math.log1p(hertz / 700);
  const step = (mel(HIGHEST) - mel(LOWEST)) / BANDS;
  return Float32Array.from({ length: BANDS + 1 }, (_, i) => (700 * Math.expm1(mel(LOWEST) + i * step) * SIZE) / RATE);
}

// Level of each band: the mean of its bins, or of a narrow one the value between two.
function bandLevels(power, edges, frames) {
  return Float32Array.from({ length: BANDS }, (_, band) => {
    const [low, high] = [edges[band], edges[band + 1]];
    let sum = 0;
    if (high - low < 2) {
      const middle = (low + high) / 2;
      const bin = Math.min(Math.floor(middle), SIZE / 2 - 1);
      sum = power[bin] + (power[bin + 1] - power[bin]) * (middle - bin);
    } else {
      for (let bin = Math.ceil(low); bin < high; bin++) sum += power[bin] / (Math.ceil(high) - Math.ceil(low));
    }
    return 10 * Math.log10(sum / frames + 1e-10);
  });
}

const real = new Float32Array(SIZE);
const imaginary = new Float32Array(SIZE);

// Add the power spectrum of the frame from `start`; samples beyond the ends are zeros.
function addPower(power, samples, start) {
  real.fill(0);
  imaginary.fill(0);
  for (let i = 0; i < WINDOW; i++) real[i] = (samples[start + i] ?? 0) * HANN[i];
  fft(real, imaginary);
  for (let bin = 0; bin < power.length; bin++) power[bin] += real[bin] ** 2 + imaginary[bin] ** 2;
}

const BITS = Math.log2(SIZE);
const REVERSED = Uint16Array.from({ length: SIZE }, (_, i) =>
  parseInt(i.toString(2).padStart(BITS, "0").split("").reverse().join(""), 2),
);
const COSINE = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const SINE = Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.sin((2 * Math.PI * i) / SIZE));

// Fast Fourier transform in place, radix 2 (Cooley and Tukey).
function fft(re, im) {
  for (let i = 0; i < SIZE; i++) {
    const j = REVERSED[i];
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let half = 1; half < SIZE; half *= 2) {
    const step = SIZE / (2 * half);
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let k = 0; k < half; k++) {
        const [top, bottom] = [start + k, start + k + half];
        const [cosine, sine] = [COSINE[k * step], SINE[k * step]];
        const r = re[bottom] * cosine + im[bottom] * sine;
        const i = im[bottom] * cosine - re[bottom] * sine;
        re[bottom] = re[top] - r;
        im[bottom] = im[top] - i;
        re[top] += r;
        im[top] += i;
      }
    }
  }
}

// 256 pixels from quiet to loud, between the colors --quiet, --low, --high and --loud of the style sheet.
function palette(canvas) {
  const context = new OffscreenCanvas(256, 1).getContext("2d");
  const gradient = context.createLinearGradient(0, 0, 256, 0);
  const probe = canvas.ownerDocument.createElement("span");
  probe.style.forcedColorAdjust = "none";
  canvas.after(probe);
  ["quiet", "low", "high", "loud"].forEach((name, index) => {
    probe.style.color = `var(--${name})`; // resolves light-dark(), which a canvas does not know
    gradient.addColorStop(index / 3, getComputedStyle(probe).color);
  });
  probe.remove();
  context.fillStyle = gradient;
  context.fillRect(0, 0, 256, 1);
  return new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
}
