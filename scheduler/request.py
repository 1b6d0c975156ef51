"""Requests, their options, and the events that report their results."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the scheduler itself never imports torch
    from torch import Tensor


class FinishReason(StrEnum):
    """Reason for the end of a request or sequence."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Decoding options of one request; names and meanings are transformers'.

    Args:
        max_length: tokens of the longest sequence, the start token counted.
        min_length: no end token before so many tokens.
        num_beams: hypotheses of beam search; 1 for greedy search or sampling.
        do_sample: draw tokens instead of taking the best.
        num_return_sequences: how many sequences to return, best first.
        temperature, top_k, top_p: shape of the distribution to draw from; 1, 0 and 1 leave it unchanged.
        length_penalty: exponent of the length that divides a beam's score.
        early_stopping: True, False or "never": the rule by which a beam search gives up its open beams.
        repetition_penalty: divides positive and multiplies negative scores of tokens already there.
        no_repeat_ngram_size: n-grams of this size occur once at most; 0 allows any.
        renormalize_logits: log-softmax after all other rules.
        decoder_start_token_id: the first token.
        eos_token_ids: any of these ends a sequence.
        pad_token_id: fills up ended sequences.
        forced_bos_token_id: the second token, such as a target language.
        forced_eos_token_ids: the last token at max_length, any of these.
        bad_words_ids: token sequences that never occur.
        suppress_tokens: tokens that never occur.
        begin_suppress_tokens: tokens that do not occur as the first generated one.
        seed: of the draws.
    """

    max_length: int
    min_length: int = 0
    num_beams: int = 1
    do_sample: bool = False
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    renormalize_logits: bool = False
    decoder_start_token_id: int = 2
    eos_token_ids: tuple[int, ...] = ()
    pad_token_id: int = 1
    forced_bos_token_id: int | None = None
    forced_eos_token_ids: tuple[int, ...] = ()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    seed: int = 0

    @property
    def hypotheses(self) -> int:
        """Sequences decoded side by side."""
        return max(self.num_beams, self.num_return_sequences)


@dataclass(frozen=True, slots=True)
class Request:
    """One recording or text for the model.

    Args:
        request_id: larger than every earlier one's.
        inputs: float32 waveform [samples] at the model's rate, or features [frames, features], as the loop's
            front end takes them.
        options: how to decode it; None for an encoder-only request.
        priority: larger goes first; first come, first served within one.
        stream: report tokens as they are decoded (greedy search and sampling of one sequence).
        keep_scores: keep the scores of every step for its RequestOutput.
    """

    request_id: int
    inputs: "Tensor"
    options: GenerationOptions | None = None
    priority: int = 0
    stream: bool = False
    keep_scores: bool = False


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded sequence.

    Args:
        token_ids: with the start token and the end token, as transformers returns them.
        score: beam search's sequence score; for greedy search and sampling the mean log-probability of the
            generated tokens under the model.
        finish_reason: STOP at an end token, LENGTH at max_length.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a streaming request has decoded since its last event."""

    request_id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """The end of a request: its hypotheses or predictions, or the reason why there are none.

    Args:
        request_id: of the request; -1 where the engine ended it before the loop had it.
        hypotheses: best first; none of an encoder-only request, or where it failed or was cancelled.
        finish_reason: of the best hypothesis, or of the request.
        error: set where finish_reason is ERROR.
        scores: where the request asked for them, processed scores of each step, float32 [hypotheses,
            vocabulary].
        predictions: of an encoder-only request, `predict`'s tensors by name: its own rows, on the host.
    """

    request_id: int
    hypotheses: tuple[Hypothesis, ...]
    finish_reason: FinishReason
    error: Exception | None = None
    scores: "tuple[Tensor, ...]" = ()
    predictions: "Mapping[str, Tensor] | None" = None


Event = Tokens | RequestOutput
