"""Waveforms to text on the CPU: Tritone beside transformers at its best batch size, in one run.

    python bench/cpu.py [--threads 2] [--beams 1 5] [--dtype float32 bfloat16] [--repeats 3] [--json FILE]

The default Speech2TextConfig (29.5 M parameters) with random weights, 32 recordings of 1.5 to 30 s, 3.4 new
tokens a second of audio, fixed: the end token is suppressed. Both engines get float32 waveforms in memory and
give text; feature extraction and detokenisation count. Tritone takes the recordings in the order given;
transformers, in float32, gets them sorted by length, in padded batches of 1, 4, 8 and 16, and each batch runs
until its longest member is done, as static batches do. Engines take turns, the median of the repeats counts.

What Tritone's invariance costs is seen beside it, in rows that do without: products of as many rows as there
are, and torch's sigmoid. It needs the `dev` extra.
"""

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import sentencepiece
import torch
import transformers
from tritone.kernels import linear, prepacked

import tritone

TOKENS_PER_SECOND = 3.4
BATCH_SIZES = (1, 4, 8, 16)
RATE = 16_000
SINGLE = "tritone, float32"
VARIANT = ", without invariance"
END = 2  # the end token, which neither engine may choose: lengths are fixed, and options the same for all


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    waveforms = make_waveforms()
    seconds = sum(map(len, waveforms)) / RATE
    print(
        f"{platform.machine()}, {arguments.threads} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}; {len(waveforms)} recordings, {seconds:.0f} s of audio"
    )
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder))
        for beams in arguments.beams:
            runs = contestants(folder, waveforms, beams, arguments.dtype)
            medians = take_turns(runs, arguments.repeats)
            results[f"{beams} beams"] = report(medians, seconds, beams)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], help="of Tritone's models")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_waveforms() -> list[np.ndarray]:
    """32 recordings of 1.5 to 30 s in a fixed random order: noise with a slow envelope, as loud as speech."""
    rng = np.random.default_rng(0)
    durations = np.linspace(1.5, 30, 32)
    rng.shuffle(durations)
    waveforms = []
    for duration in durations:
        time_axis = np.arange(int(duration * RATE)) / RATE
        envelope = 0.05 * (1.1 + np.sin(2 * math.pi * 3 * time_axis))
        waveforms.append((envelope * rng.standard_normal(len(time_axis))).astype(np.float32))
    return waveforms


def write_checkpoint(folder: Path) -> None:
    """A checkpoint with random weights and a vocabulary of 10,000 made-up words, as transformers saves it."""
    torch.manual_seed(0)
    model = transformers.Speech2TextForConditionalGeneration(transformers.Speech2TextConfig())
    model.save_pretrained(folder)
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = sorted({"".join(rng.choice(letters, rng.integers(3, 9))) for _ in range(12_000)})
    (folder / "words.txt").write_text("\n".join(words))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "words.txt"),
        model_prefix=str(folder / "sentencepiece.bpe"),
        vocab_size=10_000,
        model_type="unigram",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for index in range(pieces.get_piece_size()):
        vocabulary.setdefault(pieces.id_to_piece(index), len(vocabulary))
    for index in range(len(vocabulary), 10_000):
        vocabulary[f"▁unused{index}"] = index
    (folder / "vocab.json").write_text(json.dumps(dict(list(vocabulary.items())[:10_000])))
    transformers.Speech2TextProcessor(
        transformers.Speech2TextFeatureExtractor(),
        transformers.Speech2TextTokenizer(
            str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
        ),
    ).save_pretrained(folder)


def new_tokens(waveform: np.ndarray) -> int:
    return round(TOKENS_PER_SECOND * len(waveform) / RATE)


def contestants(
    folder: str, waveforms: list[np.ndarray], beams: int, dtypes: list[str]
) -> dict[str, Callable[[], list[str]]]:
    """Each engine as a function from nothing to the 32 texts; models are loaded here, outside the clock."""
    runs: dict[str, Callable[[], list[str]]] = {}
    own_processor = tritone.AutoProcessor.from_pretrained(folder)
    for dtype in dtypes:
        own = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=dtype)
        # Room for all 32 recordings at once, as a server would have it.
        engine = tritone.Engine(
            own, processor=own_processor, num_rows=32 * beams, num_pages=1024 + 256 * beams
        )
        runs[f"tritone, {dtype}"] = partial(run_tritone, engine, waveforms, beams)
        runs[f"tritone, {dtype}{VARIANT}"] = partial(run_variant, engine, waveforms, beams)
    model = transformers.Speech2TextForConditionalGeneration.from_pretrained(folder).eval()
    processor = transformers.Speech2TextProcessor.from_pretrained(folder)
    for size in BATCH_SIZES:
        runs[f"transformers, batch {size}"] = partial(
            run_transformers, model, processor, waveforms, beams, size
        )
    return runs


def run_variant(engine: tritone.Engine, waveforms: list[np.ndarray], beams: int) -> list[str]:
    """As `run_tritone`, with operations whose bits depend on the batch in place of those that cost more."""
    with (
        mock.patch.object(prepacked, "padded_rows", lambda rows: rows),
        mock.patch.object(linear, "gated", lambda values, gate: values * gate.sigmoid()),
    ):
        return run_tritone(engine, waveforms, beams)


def run_tritone(engine: tritone.Engine, waveforms: list[np.ndarray], beams: int) -> list[str]:
    handles = [
        engine.submit(
            waveform,
            num_beams=beams,
            max_new_tokens=new_tokens(waveform),
            suppress_tokens=[END],
            stream=False,
        )
        for waveform in waveforms
    ]
    results = [handle.result() for handle in handles]
    for waveform, result in zip(waveforms, results, strict=True):
        if len(result.token_ids) != new_tokens(waveform) + 1:
            raise RuntimeError(f"{len(result.token_ids)} tokens, wanted {new_tokens(waveform) + 1}")
    return [result.text for result in results]


@torch.inference_mode()
def run_transformers(
    model: transformers.Speech2TextForConditionalGeneration,
    processor: transformers.Speech2TextProcessor,
    waveforms: list[np.ndarray],
    beams: int,
    size: int,
) -> list[str]:
    order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
    texts = [""] * len(waveforms)
    for start in range(0, len(order), size):
        members = order[start : start + size]
        batch = [waveforms[index] for index in members]
        inputs = processor(batch, sampling_rate=RATE, padding=True, return_tensors="pt")
        tokens = max(map(new_tokens, batch))
        ids = model.generate(
            inputs["input_features"],
            attention_mask=inputs["attention_mask"],
            num_beams=beams,
            max_new_tokens=tokens,
            suppress_tokens=[END],
        )
        for index, text in zip(members, processor.batch_decode(ids, skip_special_tokens=True), strict=True):
            texts[index] = text
    return texts


def take_turns(runs: dict[str, Callable[[], list[str]]], repeats: int) -> dict[str, float]:
    """Median seconds of each, after a first round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(medians: dict[str, float], audio_seconds: float, beams: int) -> dict[str, float]:
    rtfx = {name: audio_seconds / seconds for name, seconds in medians.items()}
    print(f"\n{'greedy' if beams == 1 else f'{beams} beams'}: RTFx (seconds of audio a second)")
    for name, value in rtfx.items():
        print(f"  {name:<38}{value:8.1f}")
    best = max((value, name) for name, value in rtfx.items() if name.startswith("transformers"))
    for name, value in rtfx.items():
        if f"{name}{VARIANT}" not in rtfx:
            continue
        others = [f"{value / best[0]:.2f} times {best[1]}"]
        if name != SINGLE and SINGLE in rtfx:
            others.append(f"{value / rtfx[SINGLE]:.2f} times {SINGLE}")
        cost = 100 * (rtfx[f"{name}{VARIANT}"] / value - 1)
        print(f"  {name} is {' and '.join(others)}; invariance costs {cost:.1f} % of its time")
    return rtfx


if __name__ == "__main__":
    main()
