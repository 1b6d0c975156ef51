"""Hours of speech in one recording, beside its sentences alone: errors, memory, and times of words.

    python -m bench.engine long --model digits|english|FOLDER [--speech digits|english] [--minutes 60]

Strings of digits from FSDD, or English sentences by festival, are joined to one file with pauses of 0.2 to
3 s. A process of its own transcribes the file, another one the sentences. Prints the word error rates of
both, the peak of the first process's memory, whether times rise, and how far the words that are right are
from where they were put.

    python -m bench.engine long --model english --windows pauses --minutes 10
    python -m bench.engine long --model FOLDER --max-window 20     a CTC model of digits
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tritone
from tritone.models.whisper.normalizers import EnglishTextNormalizer

from ..common.joined_speech import Sentence, Word, alone, digit_strings, english_sentences, write_joined
from ..common.machine import about_machine
from ..common.output import write_json

_MEGABYTE = 1e6
_QUANTILES = (0.5, 0.95)


@dataclass(frozen=True, slots=True)
class Transcribed:
    """Results of one process.

    Attributes:
        texts: a text for each recording.
        words: words of the last one with times; none from a model without them.
        segments: start and end of its segments in seconds.
        duration: its duration in seconds.
        seconds: time of all recordings.
        loaded, ready, peak: bytes of memory with the model loaded, behind a first sentence, and at most.
    """

    texts: list[str]
    words: list[Word]
    segments: list[tuple[float, float]]
    duration: float
    seconds: float
    loaded: int
    ready: int
    peak: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Comparison of a long recording with its sentences."""

    wer_alone: float
    wer_long: float
    rtfx: float
    memory: float  # megabytes over the loaded model
    memory_of_length: float  # megabytes over the model that has transcribed a sentence
    rising: bool
    words: int
    segments: int
    starts: dict[str, float]  # seconds from where the words were put; empty without words
    ends: dict[str, float]


def main() -> int:
    """Run the benchmark with the command's arguments."""
    arguments = _arguments()
    speech = arguments.speech or ("english" if arguments.model == "english" else "digits")
    make = english_sentences if speech == "english" else digit_strings
    sentences = make(60 * arguments.minutes, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = (arguments.keep or Path(folder)) / "long.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        put, duration = write_joined(sentences, path, arguments.seed)
        print(
            f"{speech}: {len(sentences)} sentences, {len(put)} words, {duration / 60:.1f} minutes", flush=True
        )
        waveforms = [alone(one, number) for number, one in enumerate(sentences)]
        calls = (waveforms, {}), ([str(path)], _options(arguments))
        found = [_in_process(arguments.model, waveforms[0], *call) for call in calls]
    # The usual normalizer makes one number of a string of digits.
    normalize = EnglishTextNormalizer({}) if speech == "english" else str.lower
    measured = compare(sentences, put, *found, normalize)
    for line in report(measured):
        print(line)
    if arguments.json:
        about = about_machine(torch.device("cpu"))
        write_json(arguments.json, {"about": about, "measured": asdict(measured)})
    return 0


def transcribe(
    model: str, warm_up: np.ndarray, recordings: Sequence[Any], options: dict[str, Any]
) -> Transcribed:
    """Transcribe recordings, all at once, behind a first sentence; for a process of its own."""
    torch.set_num_threads(1)
    with tritone.Engine(model, device="cpu") as engine:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of loading
        loaded = _memory("VmRSS")
        engine.submit(warm_up).result()
        ready = _memory("VmHWM")
        begin = time.perf_counter()
        handles = [engine.submit(one, **options) for one in recordings]
        results = [handle.result() for handle in handles]
        seconds = time.perf_counter() - begin
    peak, result = _memory("VmHWM"), results[-1]
    words = [Word(one.text, one.start, one.end) for one in result.words or ()]
    segments = [(one.start, one.end) for one in result.segments or ()]
    texts = [one.text for one in results]
    return Transcribed(texts, words, segments, result.duration, seconds, loaded, ready, peak)


def _memory(name: str) -> int:
    """Bytes of this process's memory by the name of Linux's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def compare(
    sentences: Sequence[Sentence],
    put: Sequence[Word],
    short: Transcribed,
    long: Transcribed,
    normalize: Callable[[str], str],
) -> Measured:
    """Compare the long transcript with those of the sentences, and its words with where they were put."""
    import jiwer

    references = [normalize(one.text) for one in sentences]
    said, heard = list(_normalized(put, normalize)), list(_normalized(long.words, normalize))
    starts, ends = list[float](), list[float]()
    if heard:
        texts = [" ".join(word.text for word in words) for words in (said, heard)]
        for chunk in jiwer.process_words(*texts).alignments[0]:
            if chunk.type == "equal":
                ours = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
                theirs = said[chunk.ref_start_idx : chunk.ref_end_idx]
                starts += [one.start - other.start for one, other in zip(ours, theirs, strict=True)]
                ends += [one.end - other.end for one, other in zip(ours, theirs, strict=True)]
    spans = [(word.start, word.end) for word in long.words]
    return Measured(
        wer_alone=jiwer.wer(references, [normalize(text) for text in short.texts]),
        wer_long=jiwer.wer(" ".join(references), normalize(long.texts[-1])),
        rtfx=long.duration / long.seconds,
        memory=(long.peak - long.loaded) / _MEGABYTE,
        memory_of_length=(long.peak - long.ready) / _MEGABYTE,
        rising=_rise(spans, long.duration) and _rise(long.segments, long.duration),
        words=len(spans),
        segments=len(long.segments),
        starts=_offsets(starts),
        ends=_offsets(ends),
    )


def report(measured: Measured) -> Iterator[str]:
    """Lines of the comparison."""
    worse = 100 * (measured.wer_long - measured.wer_alone)
    alone, long = (f"{100 * one:.2f} %" for one in (measured.wer_alone, measured.wer_long))
    yield f"WER alone {alone}, long {long}: {worse:+.2f} points"
    yield f"RTFx {measured.rtfx:.1f}"
    memory = f"{measured.memory:.0f} MB over the model, {measured.memory_of_length:.0f} MB over a sentence"
    yield f"memory at most {memory}"
    order = "rise" if measured.rising else "DO NOT RISE"
    yield f"{measured.words} words and {measured.segments} segments, whose times {order}"
    for name, offsets in (("starts", measured.starts), ("ends", measured.ends)):
        if offsets:
            shown = ", ".join(f"{1000 * value:.0f} ms ({one})" for one, value in offsets.items())
            yield f"{name} of words are off by {shown}"


def _in_process(*arguments: Any) -> Transcribed:
    """Run `transcribe` in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(transcribe, *arguments).result()


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of the long recording's request."""
    options = {"windows": arguments.windows, "max_window": arguments.max_window}
    if arguments.model == "english":
        options["word_timestamps"] = True
    return {name: value for name, value in options.items() if value is not None}


def _normalized(words: Sequence[Word], normalize: Callable[[str], str]) -> Iterator[Word]:
    """Normalized words: of one that becomes several, each has its times."""
    for word in words:
        for text in normalize(word.text).split():
            yield Word(text, word.start, word.end)


def _rise(spans: Sequence[tuple[float, float]], duration: float) -> bool:
    """Check that spans follow each other within a recording."""
    inside = all(0 <= start <= end <= duration for start, end in spans)
    return inside and all(before[1] <= after[0] + 1e-6 for before, after in pairwise(spans))


def _offsets(values: Sequence[float]) -> dict[str, float]:
    """Median with its sign, and quantiles of the sizes."""
    if not values:
        return {}
    found = {f"{one:.0%}": float(np.quantile(np.abs(values), one)) for one in _QUANTILES}
    return {**found, "signed median": float(np.median(values))}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.engine long",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="digits", help="digits, english, or a folder")
    parser.add_argument(
        "--speech", choices=("digits", "english"), help="by default as the model's name tells"
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--max-window", type=float, metavar="SECONDS")
    parser.add_argument("--windows", choices=("sequential", "pauses"), help="of Whisper")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the recording there")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
