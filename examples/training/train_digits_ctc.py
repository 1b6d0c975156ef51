"""Train a small wav2vec 2.0 with a CTC head on strings of spoken English digits, from scratch.

    python examples/training/train_digits_ctc.py --data ../shared/data/fsdd --out digits_ctc
    tritone transcribe a.wav --model digits_ctc

Data and augmentation are those of train_digits.py, with pauses of up to 3 s; the letters of a word are its
tokens, and delimiters are between words and around them. Two losses: the
model's own, CTC; and, since the joins are known, the letter at each frame, with a word's letters in equal
parts of its span. The second finds the letters in a few hundred steps and keeps their times; its weight
falls to a tenth. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from arguments import training_parser
from digits_batches import ahead
from digits_data import (
    SAMPLING_RATE,
    WORDS,
    StringMaker,
    Utterance,
    espeak_voices,
    evaluation_strings,
    load_recordings,
    training_speakers,
)
from optimization import averaged, first_average, schedule, update_average
from torch import Tensor, nn

import tritone

BLANK, DELIMITER = 0, 1
LETTERS = sorted(set("".join(WORDS)))
VOCABULARY = {
    "<pad>": BLANK,
    "|": DELIMITER,
    "<unk>": 2,
    **{letter: index for index, letter in enumerate(LETTERS, 3)},
}
IGNORED = -100
SHORTEST = 4_000  # samples of a string


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    if arguments.evaluate is None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        save(train(arguments), arguments.out)
    print(json.dumps(evaluate(arguments.evaluate or arguments.out, arguments)))


def parse_arguments() -> argparse.Namespace:
    parser = training_parser(__doc__, out="digits_ctc", steps=1500, batch=12, unit="strings", peak=2e-3)
    parser.add_argument("--start-from", type=Path, metavar="FOLDER", help="go on from this model's weights")
    return parser.parse_args()


def build_model() -> tritone.Wav2Vec2ForCTC:
    """Model of 1.2 million parameters, with a layer norm behind each convolution."""
    config = tritone.Wav2Vec2Config(
        vocab_size=len(VOCABULARY),
        pad_token_id=BLANK,
        hidden_size=144,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        conv_dim=[32, 48, 64, 96, 96, 128, 128],
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=31,
        num_conv_pos_embedding_groups=8,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        layerdrop=0.0,
        final_dropout=0.1,
        hidden_dropout=0.1,
        attention_dropout=0.1,
        activation_dropout=0.0,
        apply_spec_augment=True,
        mask_time_prob=0.1,
        mask_time_length=5,
        initializer_range=0.05,
    )
    return tritone.Wav2Vec2ForCTC(config)


@dataclass(frozen=True)
class Batch:
    """A padded batch: waveforms [batch, samples], their mask, labels of CTC and of frames."""

    samples: Tensor
    mask: Tensor
    labels: Tensor  # [batch, letters], IGNORED behind
    frame_labels: Tensor  # [batch, frames], IGNORED behind and where unknown


def training_batches(
    maker: StringMaker, model: tritone.Wav2Vec2ForCTC, arguments: argparse.Namespace
) -> Iterator[Batch]:
    """Batches of strings, whose augmentation grows over the first 40 % of the steps of a new model."""
    rng = np.random.default_rng(arguments.seed + 1)

    def made() -> Iterator[Batch]:
        for step in range(arguments.steps):
            strength = 1.0 if arguments.start_from else min(1.0, step / (0.4 * arguments.steps))
            strings = [maker.draw(strength) for _ in range(arguments.batch)]
            strings = [one for one in strings if len(one.waveform) > SHORTEST]
            yield make_batch([with_pause(one, rng) for one in strings], model)

    return ahead(made())


def with_pause(string: Utterance, rng: np.random.Generator) -> Utterance:
    """The string, every third time with a pause of up to 3 s in a place between two words, or at an end."""
    if string.spans is None or rng.random() > 1 / 3:
        return string
    place = int(rng.integers(0, len(string.digits) + 1))
    starts = [begin for begin, _ in string.spans] + [len(string.waveform)]
    ends = [0] + [end for _, end in string.spans]
    cut = max((starts[place] + ends[place]) // 2, ends[place])
    size = int(rng.uniform(0.2, 3.0) * SAMPLING_RATE)
    pause = rng.standard_normal(size).astype(np.float32) * np.float32(10 ** rng.uniform(-5, -3))
    waveform = np.concatenate([string.waveform[:cut], pause, string.waveform[cut:]])
    spans = tuple(
        (begin + size * (number >= place), end + size * (number >= place))
        for number, (begin, end) in enumerate(string.spans)
    )
    return Utterance(waveform, string.digits, spans)


def make_batch(strings: Sequence[Utterance], model: tritone.Wav2Vec2ForCTC) -> Batch:
    """Padded batch of strings of at least one digit or none, normalized one by one."""
    lengths = [len(string.waveform) for string in strings]
    samples = torch.zeros(len(strings), max(lengths))
    mask = torch.zeros(len(strings), max(lengths), dtype=torch.int64)
    frames = model.base.length(max(lengths))
    labels = [labels_of(string) for string in strings]
    padded = torch.full((len(strings), max(1, *map(len, labels))), IGNORED)
    frame_labels = torch.full((len(strings), frames), IGNORED)
    for row, (string, length) in enumerate(zip(strings, lengths, strict=True)):
        waveform = torch.from_numpy(string.waveform)
        samples[row, :length] = (waveform - waveform.mean()) / (waveform.var(correction=0) + 1e-7).sqrt()
        mask[row, :length] = 1
        padded[row, : len(labels[row])] = torch.tensor(labels[row], dtype=torch.int64)
        count = model.base.length(length)
        if string.spans is not None:
            frame_labels[row, :count] = letters_of_frames(string, count, model)
    return Batch(samples, mask, padded, frame_labels)


def labels_of(string: Utterance) -> list[int]:
    """Letters of a string's words, with delimiters between words and around them."""
    text = "".join(f"|{WORDS[digit]}" for digit in string.digits) + "|"
    return [VOCABULARY[letter] for letter in text]


def letters_of_frames(string: Utterance, count: int, model: tritone.Wav2Vec2ForCTC) -> Tensor:
    """Token at each frame, int64 [count]: letters in equal parts of a word, delimiters between words."""
    assert string.spans is not None
    hop = model.samples_per_token
    centers = np.arange(count) * hop + model.receptive_field / 2
    found = np.full(count, DELIMITER)
    for digit, (begin, end) in zip(string.digits, string.spans, strict=True):
        tokens = list[int]()
        for letter in WORDS[digit]:
            if tokens and tokens[-1] == VOCABULARY[letter]:
                tokens.append(BLANK)
            tokens.append(VOCABULARY[letter])
        inside = np.flatnonzero((centers >= begin) & (centers < end))
        found[inside] = np.repeat(tokens, -(-len(inside) // len(tokens)))[
            np.arange(len(inside)) * len(tokens) * -(-len(inside) // len(tokens)) // max(len(inside), 1)
        ]
        if len(inside):
            found[inside[-1]] = DELIMITER  # two words may touch
    return torch.from_numpy(found)


def train(arguments: argparse.Namespace) -> tritone.Wav2Vec2ForCTC:
    """Train for `--steps` steps and return the average of the last hundred models."""
    speakers = training_speakers(arguments.data, arguments.leave_out)
    synthetic, phrases = espeak_voices(arguments.voices, 2 * arguments.voices, arguments.seed)
    model = build_model()
    if arguments.start_from is not None:
        model = tritone.Wav2Vec2ForCTC.from_pretrained(arguments.start_from, dtype="float32")
    model.train()
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"speakers: {', '.join(speakers)}; parameters: {count:,}", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.peak, betas=(0.9, 0.98), weight_decay=0.02)
    average = first_average(model)
    maker = StringMaker(speakers, synthetic, phrases, arguments.seed)
    recent, began = list[tuple[float, float]](), time.monotonic()
    for step, batch in enumerate(training_batches(maker, model, arguments), 1):
        for group in optimizer.param_groups:
            group["lr"] = arguments.peak * schedule(step, arguments.steps)
        output = model(batch.samples, attention_mask=batch.mask, labels=batch.labels)
        frames = F.cross_entropy(output.logits.transpose(1, 2), batch.frame_labels)
        share = 0.1 if arguments.start_from else max(0.1, 1 - step / (0.5 * arguments.steps))
        optimizer.zero_grad()
        ((1 - share) * output.loss + share * frames).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, step)
        recent.append((float(output.loss.detach()), float(frames.detach())))
        if step % 50 == 0:
            ctc, letters = np.mean(recent, axis=0)
            pace = (time.monotonic() - began) / step
            minutes = pace * (arguments.steps - step) / 60
            print(
                f"step {step}/{arguments.steps} ctc {ctc:.4f} frames {letters:.4f} {pace:.2f} s/step, "
                f"{minutes:.0f} min to go",
                flush=True,
            )
            recent.clear()
        if step % 250 == 0:
            save(averaged(model, average), arguments.out)
    return averaged(model, average)


def save(model: tritone.Wav2Vec2ForCTC, folder: Path) -> None:
    """Write the model in float16, and its processor."""
    copy.deepcopy(model).half().save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(VOCABULARY, indent=2) + "\n")
    tokenizer = tritone.Wav2Vec2CTCTokenizer(folder / "vocab.json", bos_token=None, eos_token=None)
    extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    tritone.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def evaluate(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Word error rate in percent on strings from test/, of a checkpoint on disk."""
    import jiwer

    speakers = None if arguments.leave_out is None else [arguments.leave_out]
    strings = evaluation_strings(load_recordings(arguments.data / "test", speakers))
    spoken = [one for several in strings.values() for one in several]
    with tritone.Engine(folder, device="cpu") as engine:
        heard = [result.text for result in engine.transcribe(one.waveform for one in spoken)]
    references = [" ".join(WORDS[digit] for digit in one.digits) for one in spoken]
    return {"wer": round(100 * jiwer.wer(references, heard), 2), "words": len(" ".join(references).split())}


if __name__ == "__main__":
    main()
