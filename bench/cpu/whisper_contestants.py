"""Engines of the Whisper benchmark, each in a process of its own: `python -m bench.cpu.whisper_contestants`.

Such a process reads pickled requests from its standard input and writes pickled answers to its standard
output. Nothing but the engine that it times is imported: libraries of two engines bring two OpenMP runtimes.
"""

import os
import pickle
import sys
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

RATE = 16_000
FILES, SEQUENTIAL, WINDOWS, BATCH = "files", "sequential", "windows", "batch"
ALONE, TOGETHER = "alone", "together"  # settings of BATCH
BATCH_SIZE = 8  # of BATCH, in transformers and faster-whisper
CLIP = 30.0  # seconds of a clip of BATCH for faster-whisper's pipeline
PAUSE = 0.2  # seconds between recordings that are joined for a pipeline of one file


class Contestant(ABC):
    """An engine with a checkpoint's weights.

    Args:
        folder: checkpoint in the format that the engine reads.
        dtype: type of weights and computation.
        threads: number of cores to use.
    """

    def __init__(self, folder: str, dtype: str, threads: int) -> None:
        self.folder, self.dtype, self.threads = folder, dtype, threads
        self._loaded: dict[Any, Any] = {}

    def once(self, key: Any, load: Callable[[], Any]) -> Any:
        """Value that `load` returned on the first call with this key."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]

    @abstractmethod
    def settings(self, task: str) -> list[str]:
        """Ways to run a task, of which the fastest counts."""

    @abstractmethod
    def texts(self, task: str, setting: str, beams: int, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Texts of the waveforms; the first call of a setting may load models."""


class Tritone(Contestant):
    """An engine that has room for all recordings at once, as a server would have."""

    rows = 32  # requests decoded at once

    def settings(self, task: str) -> list[str]:
        return [ALONE, TOGETHER] if task == BATCH else [""]

    def texts(self, task: str, setting: str, beams: int, waveforms: Sequence[np.ndarray]) -> list[str]:
        options: dict[str, Any] = {"num_beams": beams, "stream": False}
        if task == BATCH:
            options["return_timestamps"] = True
            if setting == ALONE:
                engine = self.once(beams, lambda: self._engine(beams))
                return [engine.submit(waveform, **options).result().text for waveform in waveforms]
        elif task != FILES:
            options["windows"] = "sequential" if task == SEQUENTIAL else "pauses"
        engine = self.once(beams, lambda: self._engine(beams))
        handles = [engine.submit(waveform, **options) for waveform in waveforms]
        return [handle.result().text for handle in handles]

    def _engine(self, beams: int) -> Any:
        import torch

        import tritone

        torch.set_num_threads(self.threads)
        return tritone.Engine(self.folder, dtype=self.dtype, num_rows=beams * self.rows)


class Transformers(Contestant):
    """transformers in padded batches sorted by length; one long recording by its long-form `generate`, or in
    windows by its pipeline with `chunk_length_s`."""

    batch_sizes = (1, 4, 8)

    def settings(self, task: str) -> list[str]:
        return [""] if task == SEQUENTIAL else [f"batch {size}" for size in self.batch_sizes]

    def texts(self, task: str, setting: str, beams: int, waveforms: Sequence[np.ndarray]) -> list[str]:
        if task == BATCH:
            return self._in_batches(waveforms, beams, 1 if setting == ALONE else BATCH_SIZE)
        size = int(setting.removeprefix("batch ") or 1)
        if task == WINDOWS:
            found = self.once("pipeline", self._pipeline)(
                [{"raw": one, "sampling_rate": RATE} for one in waveforms],
                chunk_length_s=30,
                batch_size=size,
                generate_kwargs={"num_beams": beams},
            )
            return [one["text"] for one in found]
        order = sorted(range(len(waveforms)), key=lambda index: len(waveforms[index]))
        texts = {}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found = self._batch([waveforms[index] for index in batch], beams, is_long=task == SEQUENTIAL)
            texts.update(zip(batch, found, strict=True))
        return [texts[index] for index in range(len(waveforms))]

    def _in_batches(self, waveforms: Sequence[np.ndarray], beams: int, size: int) -> list[str]:
        """Texts with times of recordings of any length, in batches in the order given."""
        found = []
        for start in range(0, len(waveforms), size):
            found += self._batch(list(waveforms[start : start + size]), beams, is_long=True)
        return found

    def _batch(self, waveforms: list[np.ndarray], beams: int, is_long: bool) -> list[str]:
        import torch

        model, processor = self.once("model", self._load)
        whole: dict[str, Any] = {}
        if is_long and max(map(len, waveforms)) > CLIP * RATE:  # its features of shorter ones are of 30 s
            whole = {"truncation": False, "padding": "longest", "return_attention_mask": True}
        inputs = processor(waveforms, sampling_rate=RATE, return_tensors="pt", **whole).to(model.dtype)
        with torch.inference_mode():
            ids = model.generate(**inputs, num_beams=beams, return_timestamps=is_long)
        return processor.batch_decode(ids, skip_special_tokens=True)

    def _load(self) -> tuple[Any, Any]:
        import torch
        import transformers

        torch.set_num_threads(self.threads)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model = transformers.WhisperForConditionalGeneration.from_pretrained(self.folder, dtype=self.dtype)
        return model.eval(), transformers.WhisperProcessor.from_pretrained(self.folder)

    def _pipeline(self) -> Any:
        import transformers

        model, processor = self.once("model", self._load)
        return transformers.pipeline(
            "automatic-speech-recognition",
            model=model,
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
        )


class FasterWhisper(Contestant):
    """faster-whisper: file by file, with all threads or a worker for each, or by `BatchedInferencePipeline`.

    The pipeline takes one file; many are joined, each a clip of its own, so that its batches are full.
    Fallbacks and conditioning on earlier text are off, as the other engines have them by default.
    """

    batch_sizes = (4, 8)

    def settings(self, task: str) -> list[str]:
        pipelines = [f"pipeline, batch {size}" for size in self.batch_sizes]
        if task == WINDOWS:
            return pipelines
        if task == SEQUENTIAL:
            return ["one file"]
        workers = [f"file by file, {self.threads} workers"] if self.threads > 1 else []
        return ["file by file", *workers, *pipelines]

    def texts(self, task: str, setting: str, beams: int, waveforms: Sequence[np.ndarray]) -> list[str]:
        options: dict[str, Any] = {
            "beam_size": beams,
            "temperature": 0.0,
            "condition_on_previous_text": False,
            "compression_ratio_threshold": None,
            "log_prob_threshold": None,
            "no_speech_threshold": None,
            "without_timestamps": task != SEQUENTIAL,
        }
        name, _, number = setting.rpartition(" ")
        if task == BATCH:
            return self._clipped(setting, waveforms, options)
        if name == "pipeline, batch":
            return self._pipelined(task, waveforms, options | {"batch_size": int(number)})
        workers = self.threads if number == "workers" else 1
        model = self._model(workers)

        def text(waveform: np.ndarray) -> str:
            return "".join(segment.text for segment in model.transcribe(waveform, **options)[0])

        if workers == 1:
            return [text(waveform) for waveform in waveforms]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(text, waveforms))

    def _pipelined(self, task: str, waveforms: Sequence[np.ndarray], options: dict[str, Any]) -> list[str]:
        from faster_whisper import BatchedInferencePipeline

        pipeline = BatchedInferencePipeline(self._model(1))
        if task == WINDOWS:  # cut by its own detection of speech
            return [
                "".join(segment.text for segment in pipeline.transcribe(waveform, **options)[0])
                for waveform in waveforms
            ]
        pause = np.zeros(int(PAUSE * RATE), np.float32)
        starts = np.cumsum([0, *(len(waveform) + len(pause) for waveform in waveforms[:-1])]) / RATE
        clips = [
            {"start": start, "end": start + len(waveform) / RATE}
            for start, waveform in zip(starts.tolist(), waveforms, strict=True)
        ]
        joined = np.concatenate([part for waveform in waveforms for part in (waveform, pause)])
        texts = [""] * len(waveforms)
        for segment in pipeline.transcribe(joined, clip_timestamps=clips, **options)[0]:
            texts[bisect_right(starts.tolist(), segment.start + PAUSE / 2) - 1] += segment.text
        return texts

    def _clipped(self, setting: str, waveforms: Sequence[np.ndarray], options: dict[str, Any]) -> list[str]:
        """Texts of recordings that are joined, cut into clips: those of each one alone, or of all in batches.

        Alone the same samples are decoded, so that nothing but the batch differs.
        """
        from faster_whisper import BatchedInferencePipeline

        pipeline = BatchedInferencePipeline(self._model(1))
        joined, clips, texts = (
            np.concatenate(waveforms),
            list[list[dict[str, float]]](),
            [""] * len(waveforms),
        )
        begin = 0
        for waveform in waveforms:
            step = int(CLIP * RATE)
            bounds = [*range(begin, begin + len(waveform), step), begin + len(waveform)]
            clips.append([{"start": one / RATE, "end": other / RATE} for one, other in pairwise(bounds)])
            begin += len(waveform)
        starts = [own[0]["start"] for own in clips]
        together = [[one for own in clips for one in own]]
        size = 1 if setting == ALONE else BATCH_SIZE
        for chosen in clips if setting == ALONE else together:
            for segment in pipeline.transcribe(joined, clip_timestamps=chosen, batch_size=size, **options)[0]:
                texts[bisect_right(starts, segment.start + 1e-3) - 1] += segment.text
        return texts

    def _model(self, workers: int) -> Any:
        from faster_whisper import WhisperModel

        options = {"cpu_threads": self.threads // workers, "num_workers": workers}
        return self.once(
            workers, lambda: WhisperModel(self.folder, device="cpu", compute_type=self.dtype, **options)
        )


CONTESTANTS: dict[str, type[Contestant]] = {
    "tritone": Tritone,
    "transformers": Transformers,
    "faster-whisper": FasterWhisper,
}


def timed(contestant: Contestant, *request: Any) -> tuple[list[str], float, float]:
    """Texts of a run, its seconds, and CPU seconds of all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    texts = contestant.texts(*request)
    return texts, time.perf_counter() - wall, time.process_time() - cpu


def serve(name: str, folder: str, dtype: str, threads: str) -> None:
    """Answer requests from standard input until it is closed: a task for its settings, or the arguments of
    `Contestant.texts`. An answer is a result and None, or None and an error's text."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    contestant = CONTESTANTS[name](folder, dtype, int(threads))
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            found = contestant.settings(request) if isinstance(request, str) else timed(contestant, *request)
            answer: tuple[Any, str | None] = (found, None)
        except Exception as error:
            answer = None, f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    serve(*sys.argv[1:])
