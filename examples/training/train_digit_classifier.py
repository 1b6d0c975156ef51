r"""Train Tritone's bundled classifier of recordings: one spoken English digit, ten labels.

    python examples/training/train_digit_classifier.py --data ../shared/data/fsdd \
        --out models/digit_classifier

`--data` holds train/ and test/ of the Free Spoken Digit Dataset (CC BY-SA 4.0,
github.com/Jakobovski/free-spoken-digit-dataset), files named {digit}_{speaker}_{index}.wav. A small
wav2vec 2.0 with a classifier's head, from the waveform on and with the model's own loss. Recordings are
augmented as those of train_digits.py are, and a quarter of them are espeak-ng's, where it is installed. With
`--leave-out SPEAKER` that speaker is kept out of the training and the model is measured on their recordings.
`--evaluate FOLDER` measures a model without training. The last line printed is JSON; `confusion.png` and
`losses.png` go to `--plots`.

It is measured as a user would run it: an Engine, the files, the best label.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from arguments import training_parser
from digits_batches import ahead
from digits_data import SAMPLING_RATE, WORDS, StringMaker, espeak_voices, training_speakers
from optimization import averaged, first_average, schedule, update_average
from plots import plotting
from torch import Tensor, nn

import tritone


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    folder = arguments.evaluate
    if folder is None:
        folder = arguments.out
        folder.mkdir(parents=True, exist_ok=True)
        model, losses = train(arguments)
        save(model, folder)
        plot_losses(losses, arguments.plots or folder)
    # Measured from the folder, whose weights are rounded to float16.
    found = Confusion.of(folder, recordings_to_measure(arguments))
    found.plot((arguments.plots or folder) / "confusion.png")
    print(json.dumps(found.summary() | {"left_out": arguments.leave_out}))


def parse_arguments() -> argparse.Namespace:
    parser = training_parser(
        __doc__, out="digit_classifier", steps=2000, batch=32, unit="recordings", peak=1.5e-3
    )
    parser.add_argument("--plots", type=Path, help="folder for the plots; that of the model by default")
    return parser.parse_args()


def build_model() -> tritone.Wav2Vec2ForSequenceClassification:
    """A wav2vec 2.0 of half a million parameters; 16 ms a frame.

    Its first convolution spans 8 ms; the published models begin with 0.6 ms and take seven convolutions to
    reach as far, which they learn from far more recordings.
    """
    config = tritone.Wav2Vec2Config(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        conv_dim=(96, 96, 96, 96),
        conv_kernel=(128, 5, 5, 3),
        conv_stride=(32, 2, 2, 2),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=96,
        hidden_dropout=0.1,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.1,
        layerdrop=0.0,
        mask_time_prob=0.1,
        mask_time_length=3,
        mask_time_min_masks=0,
        id2label=dict(enumerate(WORDS)),
        label2id={word: digit for digit, word in enumerate(WORDS)},
        problem_type="single_label_classification",
    )
    model = tritone.Wav2Vec2ForSequenceClassification(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):  # the published 0.02 is for widths of 768
            nn.init.xavier_uniform_(module.weight)
    tune(model.wav2vec2.feature_extractor.conv_layers[0].conv.weight)
    return model


@torch.no_grad()
def tune(weight: Tensor) -> None:
    """Fill the first convolution [channels, 1, kernel] with a filter bank to start from: windowed tones at
    mel-spaced frequencies, each as cosine and sine."""
    channels, _, kernel = weight.shape
    low, high = (1127 * np.log1p(f / 700) for f in (60.0, 0.95 * SAMPLING_RATE / 2))
    pitches = 700 * np.expm1(np.linspace(low, high, channels // 2) / 1127)  # Hz
    clock = (torch.arange(kernel) - kernel / 2) / SAMPLING_RATE
    angles = 2 * torch.pi * torch.from_numpy(pitches).float()[:, None] * clock
    tones = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(kernel)
    weight.copy_((tones / tones.norm(dim=1, keepdim=True))[:, None])


# --- training -------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace) -> tuple[tritone.Wav2Vec2ForSequenceClassification, list[float]]:
    """Train for `--steps` steps; returns the averaged model, in evaluation mode, and each step's loss."""
    speakers = training_speakers(arguments.data, arguments.leave_out)
    synthetic, _ = espeak_voices(arguments.voices, 0, arguments.seed)
    voices = f"{len(synthetic)} espeak-ng voices" if synthetic else "no espeak-ng voices"
    model = build_model().train()
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"speakers: {', '.join(speakers)}; {voices}; parameters: {count:,}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.peak, betas=(0.9, 0.98), weight_decay=0.05)
    average = first_average(model)
    maker = StringMaker(speakers, synthetic, [], arguments.seed)
    losses: list[float] = []
    right = 0
    began = time.monotonic()
    batches = ahead(drawn(maker, arguments.batch, arguments.steps))
    for step, (inputs, labels) in enumerate(batches, 1):
        for group in optimizer.param_groups:
            group["lr"] = arguments.peak * schedule(step, arguments.steps)
        output = model(**inputs, labels=labels)
        optimizer.zero_grad()
        output.loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, step)
        losses.append(float(output.loss.detach()))
        right += int((output.logits.argmax(1) == labels).sum())
        if step % 100 == 0:
            pace = (time.monotonic() - began) / step
            share = 100 * right / (100 * arguments.batch)
            print(
                f"step {step}/{arguments.steps} loss {np.mean(losses[-100:]):.4f} right {share:.1f} % "
                f"{pace:.3f} s/step, {pace * (arguments.steps - step) / 60:.0f} min to go",
                flush=True,
            )
            right = 0
    return averaged(model, average), losses


def drawn(maker: StringMaker, size: int, steps: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Batches of augmented digits, padded with their mask, and their labels [size]. Augmentation grows from
    none over the first 40 % of the steps."""
    extractor = feature_extractor()
    for step in range(steps):
        digits = [maker.draw_digit(min(1.0, step / (0.4 * steps))) for _ in range(size)]
        inputs = extractor(
            [digit.waveform for digit in digits],
            sampling_rate=SAMPLING_RATE,
            padding=True,
            return_tensors="pt",
        )
        yield dict(inputs), torch.tensor([digit.digits[0] for digit in digits])


def feature_extractor() -> tritone.Wav2Vec2FeatureExtractor:
    """16 kHz, each recording at mean 0 and variance 1."""
    return tritone.Wav2Vec2FeatureExtractor(
        sampling_rate=SAMPLING_RATE, do_normalize=True, return_attention_mask=True
    )


def save(model: tritone.Wav2Vec2ForSequenceClassification, folder: Path) -> None:
    """Write the model in float16, and its front end."""
    copy.deepcopy(model).half().save_pretrained(folder)
    feature_extractor().save_pretrained(folder)


# --- measuring ------------------------------------------------------------------------------------


def recordings_to_measure(arguments: argparse.Namespace) -> list[Path]:
    """All of test/; all recordings of a left-out speaker, since none of them was trained on."""
    if arguments.leave_out is None:
        return sorted((arguments.data / "test").glob("*_*_*.wav"))
    return sorted(arguments.data.glob(f"t*/*_{arguments.leave_out}_*.wav"))


class Confusion:
    """Confusion matrix of the ten digits.

    Args:
        counts: [10, 10], digits spoken by digits recognized.
        by_speaker: correct and all recordings of each speaker.
    """

    def __init__(self, counts: np.ndarray, by_speaker: dict[str, tuple[int, int]]) -> None:
        self.counts = counts
        self.by_speaker = by_speaker

    @classmethod
    def of(cls, folder: Path, recordings: Sequence[Path]) -> Confusion:
        """The confusion matrix of a checkpoint over files named digit_speaker_index.wav.

        Raises:
            SystemExit: no recordings, or one that could not be classified.
        """
        if not recordings:
            raise SystemExit("no recordings named digit_speaker_index.wav; give their folder with --data")
        counts = np.zeros((10, 10), dtype=int)
        by_speaker: dict[str, tuple[int, int]] = {}
        with tritone.Engine(folder) as engine:
            for path, result in zip(recordings, engine.classify(recordings, top_k=1), strict=True):
                if result.error is not None:
                    raise SystemExit(str(result.error))
                digit, speaker, _ = path.stem.split("_")
                heard = WORDS.index(result.labels[0].label)
                counts[int(digit), heard] += 1
                right, total = by_speaker.get(speaker, (0, 0))
                by_speaker[speaker] = right + (heard == int(digit)), total + 1
        return cls(counts, by_speaker)

    def summary(self) -> dict[str, object]:
        """Accuracies in percent."""
        right, total = int(self.counts.trace()), int(self.counts.sum())
        return {
            "accuracy": round(100 * right / total, 2),
            "right": right,
            "recordings": total,
            "accuracy_by_speaker": {
                name: round(100 * good / of, 2) for name, (good, of) in self.by_speaker.items()
            },
        }

    def plot(self, path: Path) -> None:
        """Draw the matrix; print a line instead without matplotlib."""
        pyplot = plotting()
        if pyplot is None:
            return
        figure, axes = pyplot.subplots(figsize=(5.6, 5.2))
        axes.imshow(self.counts / self.counts.sum(1, keepdims=True).clip(1), cmap="Blues", vmin=0, vmax=1)
        for spoken, heard in np.argwhere(self.counts):
            dark = self.counts[spoken, heard] > 0.5 * self.counts[spoken].sum()
            axes.text(
                heard,
                spoken,
                str(self.counts[spoken, heard]),
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
        axes.set_xticks(range(10), WORDS, rotation=45)
        axes.set_yticks(range(10), WORDS)
        summary = self.summary()
        axes.set(
            xlabel="heard",
            ylabel="spoken",
            title=f"{summary['right']} of {summary['recordings']} right ({summary['accuracy']} %)",
        )
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=90)


def plot_losses(losses: list[float], folder: Path) -> None:
    """Draw the loss, smoothed over 50 steps."""
    pyplot = plotting()
    if pyplot is None:
        return
    window = min(50, len(losses))
    smooth = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.semilogy(np.arange(window, len(losses) + 1), smooth)
    axes.set(xlabel=f"step (mean of {window})", ylabel="cross entropy, nats a recording")
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "losses.png", dpi=90)


if __name__ == "__main__":
    main()
