"""How an engine drives a model that decodes token by token: its cache, its options, its text."""

import math
from typing import Any

from ...scheduler.block_allocator import PAGE_SIZE
from ...scheduler.request import GenerationOptions
from ..config import Settings
from ..gpu.memory import FRACTION, fitting_pages
from ..gpu.warm_up import ways_of_decoding
from ..outputs import TokenReader
from .inputs import Recordings

# The longest result where neither the call nor the checkpoint says: speech has about 3.4 tokens a second.
TOKENS_PER_SECOND = 8
TOKENS_TO_SPARE = 16

# A cache that nobody sized holds a greedy request of this many seconds in each row.
USUAL_SECONDS = 20.0

ENCODE_BUDGET = 4096  # encoder positions of a step


class Generation:
    """A generative model in an engine.

    Args:
        model: see `GenerativeModel`; with `resolve_options` and `generation_loop`.
        inputs: recordings.
        tokenizer: its own.
        settings: see `Engine`.

    Raises:
        ValueError: a size below 1, a fraction that is none, or two sizes for one cache.
    """

    verb = "transcribe"

    def __init__(self, model: Any, inputs: Recordings, tokenizer: Any, settings: Settings) -> None:
        self.name = type(model).__name__
        self.inputs = inputs
        self._model = model
        self._feature_extractor, self._tokenizer = inputs.front_end, tokenizer
        self._max_seconds = inputs.max_seconds
        on_gpu = model.device.type == "cuda"
        num_rows, num_pages = settings.num_rows, settings.num_pages
        memory_fraction = settings.memory_fraction
        _check_fraction(memory_fraction, num_pages, on_gpu)
        if num_rows is None:
            num_rows = 512 if on_gpu else 32
        if num_pages is None and num_rows > 0:
            num_pages = self._usual_pages(num_rows, memory_fraction or FRACTION)
        for name, number in (("num_rows", num_rows), ("num_pages", num_pages)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}; it must be 1 or more")
        self.loop = model.generation_loop(
            self._feature_extractor,
            num_pages=num_pages,
            num_rows=num_rows,
            encode_budget=ENCODE_BUDGET,
            graphs=settings.graphs and on_gpu,
            overlap=settings.overlap and on_gpu,
        )
        self.ways = ways_of_decoding(self.resolve({}, USUAL_SECONDS), num_rows)
        # Twice the rows: as many again are read while those are decoded.
        self.places = 2 * num_rows
        self.seconds = math.inf  # of audio in those places; not bounded otherwise
        self._reader = TokenReader(
            lambda token_ids: self._tokenizer.decode(list(token_ids), skip_special_tokens=True),
            self._tokenizer.clean_up_tokenization_spaces,
        )

    def check(self, language: str | None, options: dict[str, Any]) -> dict[str, Any]:
        """The call's options with its language among them; raises ValueError for what cannot be."""
        if language is not None:
            if options.get("forced_bos_token_id") is not None:
                raise ValueError("language and forced_bos_token_id say the same thing; give one of them")
            known = getattr(self._tokenizer, "lang_code_to_id", {})
            if language not in known:
                there = ", ".join(sorted(known)) or "none: it has one language; leave it out"
                raise ValueError(f"language {language!r} is not one of this checkpoint's ({there})")
            options = {**options, "forced_bos_token_id": known[language]}
        if self.resolve(options, USUAL_SECONDS).num_return_sequences != 1:
            raise ValueError("num_return_sequences must be 1 here; model.generate returns several")
        return options

    def reader(self, options: dict[str, Any]) -> TokenReader:
        """What reads the tokens of a request."""
        return self._reader

    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions:
        """All generation options of a recording of `duration` seconds."""
        usual = 1 + TOKENS_TO_SPARE + math.ceil(TOKENS_PER_SECOND * duration)
        resolved: GenerationOptions = self._model.resolve_options(
            default_max_length=min(usual, self._model.max_length), **options
        )
        return resolved

    def _usual_pages(self, num_rows: int, fraction: float) -> int:
        """Pages of the cache where nobody says: on a GPU what it has room for, within what rows can fill."""
        rate = self._feature_extractor.sampling_rate

        def pages(seconds: float, hypotheses: int, tokens: int | None = None) -> int:
            frames = self._feature_extractor.frame_count(int(seconds * rate))
            cross = math.ceil(self._model.encoder_length(frames) / PAGE_SIZE)
            tokens = tokens or self.resolve({}, seconds).max_length
            return cross + hypotheses * math.ceil(tokens / PAGE_SIZE)

        longest = pages(self._max_seconds, 5)
        if self._model.device.type != "cuda":
            return max(longest, num_rows * pages(min(USUAL_SECONDS, self._max_seconds), 1))
        most = max(longest, num_rows * pages(self._max_seconds, 1, self._model.max_length))
        fitting = fitting_pages(
            self._model,
            self._feature_extractor,
            self._max_seconds,
            rows=num_rows,
            fraction=fraction,
            budget=ENCODE_BUDGET,
        )
        return max(min(most, fitting), 1)


def _check_fraction(fraction: float | None, num_pages: int | None, on_gpu: bool) -> None:
    if fraction is None:
        return
    if not 0 < fraction <= 1:
        raise ValueError(f"memory_fraction is {fraction}; it must be above 0 and at most 1")
    if num_pages is not None:
        raise ValueError("memory_fraction and num_pages both say how large the cache is; give one of them")
    if not on_gpu:
        raise ValueError("memory_fraction is of a GPU's memory; on the CPU give num_pages instead")
