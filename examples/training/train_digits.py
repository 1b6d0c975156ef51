"""Train Tritone's bundled Speech2Text model: strings of spoken English digits.

    python examples/training/train_digits.py --data ../shared/data/fsdd --out models/digits

`--data` holds train/ and test/ of the Free Spoken Digit Dataset (CC BY-SA 4.0,
github.com/Jakobovski/free-spoken-digit-dataset), files named {digit}_{speaker}_{index}.wav. With
`--leave-out SPEAKER` that speaker is kept out of the training and the model is measured on their recordings.
`--start-from FOLDER` goes on from a model, without the ramp of the augmentation; `--strength` scales the
augmentation. `--evaluate FOLDER` measures a model without training. The last line printed is JSON. The
commands that made the shipped model are in models/digits/README.md, their logs
in examples/training/digits_training/.

Four losses: the model's own; CTC on the encoder; and, since the joins are known, which digit each encoder
position hears, and minus the log of the cross-attention mass on the frames of the digit to be written.
Without the last two a model this small takes thousands of steps to find the digits. The maps of CTC and of
the positions are not shipped.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import torch.nn.functional as F
from arguments import training_parser
from digits_batches import EOS, FIRST_TOKEN, Batch, make_batch, training_batches
from digits_data import (
    WORDS,
    StringMaker,
    Utterance,
    espeak_voices,
    evaluation_strings,
    load_recordings,
    training_speakers,
)
from optimization import averaged, first_average, schedule, update_average
from plots import plotting
from torch import Tensor, nn

from tritone.models.speech_to_text.model import Speech2TextConfig, Speech2TextForConditionalGeneration

VOCABULARY = ("<s>", "<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS))
LOSSES = ("decoder", "ctc", "frames", "attention")
PAD = 1  # CTC's blank too: no label is padding
MAX_LENGTH = 80  # tokens of a transcript


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    if arguments.evaluate is not None:
        model = Speech2TextForConditionalGeneration.from_pretrained(arguments.evaluate, dtype=arguments.dtype)
        print(json.dumps(evaluate(model, arguments)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    model, history = train(arguments)
    plot(history, arguments.out / "losses.png")
    save(model, arguments.out)
    # Measured from the folder, whose weights are rounded to float16.
    shipped = Speech2TextForConditionalGeneration.from_pretrained(arguments.out)
    print(json.dumps(evaluate(shipped, arguments)))


def parse_arguments() -> argparse.Namespace:
    parser = training_parser(__doc__, out="digits", steps=2500, batch=24, unit="strings", peak=2e-3)
    parser.add_argument("--start-from", type=Path, metavar="FOLDER", help="go on from this model's weights")
    parser.add_argument("--strength", type=float, default=1.0, help="of the augmentation at its most, 0 to 1")
    parser.add_argument("--dtype", default="float32", help="of the model that --evaluate measures")
    return parser.parse_args()


def build_model() -> Speech2TextForConditionalGeneration:
    """1.85 million parameters, Xavier-initialized: transformers' 0.02 starts too flat for so few steps."""
    config = Speech2TextConfig(
        vocab_size=len(VOCABULARY),
        d_model=144,
        encoder_layers=4,
        decoder_layers=2,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        conv_channels=256,
        dropout=0.1,
    )
    model = Speech2TextForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        if "embed" in name:
            nn.init.normal_(parameter, std=config.d_model**-0.5)
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    return model


# --- training -------------------------------------------------------------------------------------


def train(
    arguments: argparse.Namespace,
) -> tuple[Speech2TextForConditionalGeneration, list[dict[str, float]]]:
    """Train for `--steps` steps; returns the averaged model, in evaluation mode, and each step's losses."""
    speakers = training_speakers(arguments.data, arguments.leave_out)
    began = time.monotonic()
    synthetic, phrases = espeak_voices(arguments.voices, 4 * arguments.voices, arguments.seed)
    if synthetic:
        spent = time.monotonic() - began
        print(
            f"espeak-ng: {len(synthetic)} voices, {len(phrases)} connected strings, {spent:.0f} s", flush=True
        )
    else:
        print(
            "no espeak-ng voices: it is not installed, or --voices is 0; training on the recordings alone",
            flush=True,
        )
    model = build_model()
    if arguments.start_from is not None:
        model = Speech2TextForConditionalGeneration.from_pretrained(arguments.start_from)
    model.train()
    heads = nn.ModuleDict(
        {name: nn.Linear(model.config.d_model, len(VOCABULARY)) for name in ("ctc", "frames")}
    )
    parameters = [*model.parameters(), *heads.parameters()]
    print(
        f"speakers: {', '.join(speakers)}; parameters: {sum(p.numel() for p in model.parameters()):,}",
        flush=True,
    )
    optimizer = torch.optim.AdamW(parameters, lr=arguments.peak, betas=(0.9, 0.98), weight_decay=0.02)
    average = first_average(model)
    maker = StringMaker(speakers, synthetic, phrases, arguments.seed)
    history: list[dict[str, float]] = []
    began = time.monotonic()
    for step, batch in enumerate(
        training_batches(
            maker,
            arguments.batch,
            arguments.steps,
            arguments.seed + 1,
            arguments.strength,
            ramp=arguments.start_from is None,
        ),
        1,
    ):
        for group in optimizer.param_groups:
            group["lr"] = arguments.peak * schedule(step, arguments.steps)
        # The helpers matter most at the start: they find the digits, which the decoder learns to read.
        # Attention weights cost a fifth of a step, so later only every fourth computes them.
        early = step < 0.4 * arguments.steps
        losses = all_losses(model, heads, batch, attention=early or step % 4 == 0)
        helpers = losses["ctc"] + losses["frames"] + losses.get("attention", 0.0)
        total = losses["decoder"] + (0.5 if early else 0.2) * helpers
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        update_average(average, model, step)
        history.append(
            {name: float(losses[name].detach()) if name in losses else math.nan for name in LOSSES}
        )
        if step % 50 == 0:
            report(step, arguments.steps, history[-50:], (time.monotonic() - began) / step)
        if step % 500 == 0 and step < arguments.steps:
            save(averaged(model, average), arguments.out)
    return averaged(model, average), history


def all_losses(
    model: Speech2TextForConditionalGeneration, heads: nn.ModuleDict, batch: Batch, attention: bool
) -> dict[str, Tensor]:
    """The losses by name, each per token; the attention loss only on request."""
    output = model(
        batch.features, attention_mask=batch.mask, labels=batch.labels, output_attentions=attention
    )
    lengths = torch.tensor([model.encoder_length(int(frames)) for frames in batch.mask.sum(1)])
    scores = heads["ctc"](output.encoder_last_hidden_state).log_softmax(-1).transpose(0, 1)
    ctc = F.ctc_loss(
        scores, batch.targets, lengths, batch.target_lengths, blank=PAD, reduction="sum", zero_infinity=True
    ) / max(1, int(batch.target_lengths.sum()))
    frames = F.cross_entropy(
        heads["frames"](output.encoder_last_hidden_state).transpose(1, 2), frame_labels(batch, lengths)
    )
    losses = {"decoder": output.loss, "ctc": ctc, "frames": frames}
    if attention:
        losses["attention"] = torch.stack(
            [attention_loss(w, batch.spans) for w in output.cross_attentions]
        ).mean()
    return losses


def positions_of(spans: Tensor, positions: int) -> Tensor:
    """Encoder positions that hear each label, bool [batch, tokens, positions]; none where unknown."""
    first = torch.arange(positions) * 4  # four frames a position
    return (first + 2 >= spans[..., :1]) & (first - 2 < spans[..., 1:])


def frame_labels(batch: Batch, lengths: Tensor) -> Tensor:
    """The digit at each encoder position, PAD between them, -100 where unknown: [batch, positions]."""
    positions = torch.arange(int(lengths.max()))
    labels = torch.full((len(lengths), len(positions)), PAD)
    digits = positions_of(batch.spans, len(positions)) & (batch.labels >= FIRST_TOKEN)[..., None]
    labels = torch.where(digits.any(1), (digits * batch.labels[..., None]).amax(1), labels)
    unknown = (batch.spans[:, 0, 1] < 0) & (batch.target_lengths > 0)
    return labels.masked_fill(unknown[:, None] | (positions >= lengths[:, None]), -100)


def attention_loss(weights: Tensor, spans: Tensor) -> Tensor:
    """Minus the log of the mass, averaged over heads, on the frames of each label whose span is known.

    Args:
        weights: cross-attention [batch, heads, tokens, positions].
        spans: [batch, tokens, 2], first frame and end, -1 where unknown.
    """
    known = spans[..., 1] > 0
    mass = (weights.mean(1) * positions_of(spans, weights.shape[-1])).sum(-1)
    return -(mass[known] + 1e-4).log().mean()


def report(step: int, steps: int, recent: list[dict[str, float]], pace: float) -> None:
    means = " ".join(f"{name} {np.nanmean([losses[name] for losses in recent]):.4f}" for name in recent[0])
    print(
        f"step {step}/{steps} {means} {pace:.2f} s/step, {pace * (steps - step) / 60:.0f} min to go",
        flush=True,
    )


def plot(history: list[dict[str, float]], path: Path) -> None:
    """Draw the losses, smoothed over 50 steps."""
    pyplot = plotting()
    if pyplot is None:
        return
    figure, axes = pyplot.subplots(figsize=(7, 4))
    window = min(50, len(history))
    for name in history[0]:
        values = np.array([losses[name] for losses in history])
        smooth = [np.nanmean(values[end - window : end]) for end in range(window, len(history) + 1)]
        axes.semilogy(np.arange(window, len(history) + 1), smooth, label=name)
    axes.set(xlabel=f"step (mean of {window})", ylabel="loss, nats a token")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=90)


# --- the folder -----------------------------------------------------------------------------------


def save(model: Speech2TextForConditionalGeneration, folder: Path) -> None:
    """Write the model in float16 and the files of its processor, under transformers' names."""
    copy.deepcopy(model).half().save_pretrained(folder)
    with open(folder / "sentencepiece.bpe.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS)] * 10),
            model_writer=file,
            model_type="word",
            vocab_size=3 + len(WORDS),
            minloglevel=2,
        )
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    files = {
        "vocab.json": {piece: index for index, piece in enumerate(VOCABULARY)},
        "generation_config.json": {
            "bos_token_id": 0,
            "pad_token_id": PAD,
            "eos_token_id": EOS,
            "decoder_start_token_id": EOS,
            "max_length": MAX_LENGTH,
            "num_beams": 1,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "Speech2TextFeatureExtractor",
            "processor_class": "Speech2TextProcessor",
            "feature_size": 80,
            "num_mel_bins": 80,
            "sampling_rate": 16000,
            "padding_side": "right",
            "padding_value": 0.0,
            "do_ceptral_normalize": True,
            "normalize_means": True,
            "normalize_vars": True,
            "return_attention_mask": True,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "Speech2TextTokenizer",
            "processor_class": "Speech2TextProcessor",
            "do_lower_case": False,
            "do_upper_case": False,
            "tgt_lang": None,
            "lang_codes": None,
            **special,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# --- measuring ------------------------------------------------------------------------------------


def evaluate(model: Speech2TextForConditionalGeneration, arguments: argparse.Namespace) -> dict[str, object]:
    """Greedy word error rates, in percent: on strings from test/, or from all of a left-out speaker's."""
    voices = load_recordings(
        arguments.data / "test", None if arguments.leave_out is None else [arguments.leave_out]
    )
    if arguments.leave_out is not None:
        # Nothing of this speaker was trained on, so train/ is as unseen as test/ and ten times as large.
        for digit, clips in load_recordings(arguments.data / "train", [arguments.leave_out])[
            arguments.leave_out
        ].items():
            voices[arguments.leave_out][digit].extend(clips)
    errors, words, by_length = {}, {}, dict.fromkeys(range(1, 9), 0)
    strings = evaluation_strings(voices)
    for speaker, spoken in strings.items():
        errors[speaker], words[speaker] = 0, sum(len(string.digits) for string in spoken)
        for string, heard in zip(spoken, transcribe(model, spoken), strict=True):
            wrong = edit_distance(string.digits, heard)
            errors[speaker] += wrong
            by_length[len(string.digits)] += wrong
    return {
        "wer": round(100 * sum(errors.values()) / sum(words.values()), 2),
        "errors": sum(errors.values()),
        "words": sum(words.values()),
        "left_out": arguments.leave_out,
        "wer_by_speaker": {speaker: round(100 * errors[speaker] / words[speaker], 2) for speaker in errors},
        "errors_by_length": by_length,
    }


def transcribe(
    model: Speech2TextForConditionalGeneration, strings: list[Utterance], size: int = 16
) -> list[tuple[int, ...]]:
    """The digits that greedy decoding writes for each string."""
    heard = []
    for start in range(0, len(strings), size):
        batch = make_batch(strings[start : start + size])
        for row in model.generate(
            batch.features, attention_mask=batch.mask, max_length=MAX_LENGTH, num_beams=1
        ):
            heard.append(tuple(token - FIRST_TOKEN for token in row.tolist() if token >= FIRST_TOKEN))
    return heard


def edit_distance(reference: tuple[int, ...], heard: tuple[int, ...]) -> int:
    """Fewest substitutions, deletions and insertions from one to the other."""
    row = list(range(len(heard) + 1))
    for i, expected in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, given in enumerate(heard, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != given))
    return row[-1]


if __name__ == "__main__":
    main()
