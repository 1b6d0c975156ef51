"""How an engine drives a model that decodes token by token: its cache, its options, its text."""

import math
from typing import Any

import torch

from ..scheduler.pages import PAGE_SIZE
from ..scheduler.request import GenerationOptions
from .transcription import TokenReader

# The longest result where neither the call nor the checkpoint says: speech has about 3.4 tokens a second.
TOKENS_PER_SECOND = 8
TOKENS_TO_SPARE = 16

# A cache that nobody sized holds a greedy request of this many seconds in each row.
USUAL_SECONDS = 20.0


class Generation:
    """A generative model in an engine.

    Args:
        model: see `GenerativeModel`; with `resolve_options` and `generation_loop`.
        processor: its feature extractor and tokenizer.
        max_seconds: of audio that is taken at once.
        num_rows, num_pages: see `Engine`.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(
        self, model: Any, processor: Any, max_seconds: float, num_rows: int | None, num_pages: int | None
    ) -> None:
        self._model = model
        self._feature_extractor, self._tokenizer = processor.feature_extractor, processor.tokenizer
        self._max_seconds = max_seconds
        if num_rows is None:
            num_rows = 512 if model.device.type == "cuda" else 32
        if num_pages is None:
            num_pages = self._usual_pages(num_rows)
        for name, number in (("num_rows", num_rows), ("num_pages", num_pages)):
            if number < 1:
                raise ValueError(f"{name} is {number}; it must be 1 or more")
        self.loop = model.generation_loop(self._feature_extractor, num_pages=num_pages, num_rows=num_rows)
        # Twice the rows: as many again are read while those are decoded.
        self.places = 2 * num_rows
        self.seconds = math.inf  # of audio in those places; not bounded otherwise
        self.reader = TokenReader(
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

    def resolve(self, options: dict[str, Any], duration: float) -> GenerationOptions:
        """All generation options of a recording of `duration` seconds."""
        usual = 1 + TOKENS_TO_SPARE + math.ceil(TOKENS_PER_SECOND * duration)
        resolved: GenerationOptions = self._model.resolve_options(
            default_max_length=min(usual, self._model.max_length), **options
        )
        return resolved

    def _usual_pages(self, num_rows: int) -> int:
        """Pages of the cache where nobody says."""
        rate = self._feature_extractor.sampling_rate

        def pages(seconds: float, hypotheses: int) -> int:
            frames = self._feature_extractor.frame_count(int(seconds * rate))
            cross = math.ceil(self._model.encoder_length(frames) / PAGE_SIZE)
            return cross + hypotheses * math.ceil(self.resolve({}, seconds).max_length / PAGE_SIZE)

        longest = pages(self._max_seconds, 5)
        wanted = max(longest, num_rows * pages(min(USUAL_SECONDS, self._max_seconds), 1))
        if self._model.device.type == "cuda":
            layers, heads, head_dim = self._model.cache_shape
            page_bytes = 2 * layers * heads * head_dim * PAGE_SIZE * self._model.dtype.itemsize
            free, _ = torch.cuda.mem_get_info(self._model.device)
            wanted = min(wanted, max(free // 2 // page_bytes, 1))
        return wanted
