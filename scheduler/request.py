"""Requests, their options, and the events that report their results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the scheduler itself never imports torch
    from torch import Tensor

    from ..kernels.features.log_mel import Excerpt
    from ..kernels.sampling.timestamps import TimestampRule


class FinishReason(StrEnum):
    """Reason for the end of a request or a decoded sequence."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """Generation options of one request, with the names and meanings that transformers gives them.

    Args:
        max_length: maximum sequence length in tokens, including the prompt.
        min_length: sequence length, including the prompt, before which no end token is chosen.
        num_beams: number of hypotheses in beam search; 1 for greedy search or sampling.
        do_sample: True draws tokens at random instead of taking the best.
        num_return_sequences: number of sequences to return, best first.
        temperature, top_k, top_p: shape of the distribution to draw from; 1, 0 and 1 leave it unchanged.
        length_penalty: exponent of the length by which a beam's score is divided.
        early_stopping: True, False or "never", the rule that ends a beam search with open beams.
        patience: Whisper's rule in its place: a beam search ends once num_beams * patience, rounded, of its
            hypotheses have ended, as in CTranslate2; None for `early_stopping`.
        repetition_penalty: divides positive and multiplies negative scores of tokens already generated.
        no_repeat_ngram_size: size of n-grams that may occur only once; 0 allows any repetition.
        renormalize_logits: True applies log-softmax after all other rules.
        decoder_start_token_id: first token of each sequence without prompt_tokens.
        eos_token_ids: tokens of which any ends a sequence.
        pad_token_id: token that pads ended sequences.
        forced_bos_token_id: token forced in second place, such as a target language; behind a longer prompt
            it has no effect.
        forced_eos_token_ids: tokens of which one is forced in the last place at max_length.
        bad_words_ids: token sequences that never occur.
        suppress_tokens: tokens that never occur.
        begin_suppress_tokens: tokens that do not occur as the first generated one.
        timestamps: Whisper's timestamp rule, after the rules above; None for a family without times.
        score_after_rules: True takes the log-probabilities of greedy search and sampling from the scores
            after all rules, with the temperature undone, as Whisper does; False from the model's own.
        seed: seed of random draws.
        prompt_tokens: tokens before the first generated one, the start token first; the start token alone by
            default.
        start_index: index in the prompt of the token whose logits the next two options read.
        no_speech_token: token whose probability behind `start_index` is reported; None for none.
        choices: tokens of which the likeliest behind `start_index` replaces the next one of the prompt, such
            as those of languages; none by default.
        token_log_probs: True reports the log-probability of each generated token (greedy search and
            sampling); they sum to `Hypothesis.sum_log_probability`.
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
    patience: float | None = None
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
    timestamps: "TimestampRule | None" = None
    score_after_rules: bool = False
    seed: int = 0
    prompt_tokens: tuple[int, ...] = ()
    start_index: int = 0
    no_speech_token: int | None = None
    choices: tuple[int, ...] = ()
    token_log_probs: bool = False

    @property
    def prompt(self) -> tuple[int, ...]:
        """Tokens before the first generated one: prompt_tokens, or the start token alone."""
        return self.prompt_tokens or (self.decoder_start_token_id,)

    @property
    def prefilled(self) -> int:
        """Number of the prompt's tokens that are decoded before the first step."""
        asked = self.start_index + 1 if self.no_speech_token is not None or self.choices else 0
        return max(len(self.prompt) - 1, asked)

    @property
    def hypotheses(self) -> int:
        """Number of sequences decoded in parallel."""
        return max(self.num_beams, self.num_return_sequences)


@dataclass(frozen=True, slots=True)
class AudioExcerpt:
    """Input of a request for a part of a recording, whose features depend on samples and levels around it.

    Args:
        samples: float32 waveform [samples] at the model's rate, with context on both sides.
        excerpt: frames to make from them, for the loop's front end.
    """

    samples: "Tensor"
    excerpt: "Excerpt"


@dataclass(frozen=True, slots=True)
class Request:
    """Request to a generation loop: one recording or text, with options.

    Args:
        request_id: unique number, larger than that of every earlier request.
        inputs: float32 waveform [samples] at the model's rate, or a part of one, for the loop's front end;
            features [frames, features]; or token ids [tokens, 1 or 2].
        options: generation options; None for an encoder-only request.
        priority: requests with a larger one go first, equal ones in turn between owners, then in order of
            submission.
        owner: number that requests share which take turns with those of others, such as the windows of a
            recording; None for a request of its own.
        stream: True reports tokens as they are decoded (greedy search and sampling of one sequence).
        keep_scores: True keeps the scores of every step for the RequestOutput.
        keep_encoded: True keeps the encoder's output for the RequestOutput, on the device.
        is_wanted: function that returns False once the result is not wanted any more, asked from any thread
            before a part of a step; the request is cancelled then.
    """

    request_id: int
    inputs: "Tensor | AudioExcerpt"
    options: GenerationOptions | None = None
    priority: int = 0
    owner: int | None = None
    stream: bool = False
    keep_scores: bool = False
    keep_encoded: bool = False
    is_wanted: "Callable[[], bool]" = lambda: True


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded sequence of a request that has ended, with its score.

    Args:
        token_ids: token ids including the prompt and the end token, as transformers returns them.
        score: sequence score of beam search; for greedy search and sampling the mean log-probability of the
            generated tokens under the model, or after the rules with `score_after_rules`.
        finish_reason: STOP at an end token, LENGTH at max_length.
        sum_log_probability: sum of the generated tokens' log-probabilities, of the end token too: in beam
            search of those that the beams are compared by.
        token_log_probs: log-probabilities of the generated tokens, the last of `token_ids`, if the request
            asks for them; None otherwise, and in beam search.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason
    sum_log_probability: float = 0.0
    token_log_probs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Event with the tokens that a streaming request has decoded since its last event."""

    request_id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """Event that ends a request: its hypotheses or predictions, or the reason why there are none.

    Args:
        request_id: id of the request; -1 where the engine ended it before it entered the loop.
        hypotheses: hypotheses, best first; empty for an encoder-only, failed or cancelled request.
        finish_reason: reason of the best hypothesis, or of the request.
        error: exception where finish_reason is ERROR; None otherwise.
        scores: processed scores of each step, float32 [hypotheses, vocabulary], if the request keeps scores.
        no_speech_probability: probability of the option `no_speech_token`; None without that option.
        encoded: encoder output [positions, width], if the request keeps it.
        predictions: tensors of `predict` by name for an encoder-only request, with its own rows, on the host.
        admitted_at, first_token_at: times of `time.perf_counter` at which the request was admitted to the
            batch, and at which its first token was there; None where it never was.
    """

    request_id: int
    hypotheses: tuple[Hypothesis, ...]
    finish_reason: FinishReason
    error: Exception | None = None
    scores: "tuple[Tensor, ...]" = ()
    no_speech_probability: float | None = None
    encoded: "Tensor | None" = None
    predictions: "Mapping[str, Tensor] | None" = None
    admitted_at: float | None = field(default=None, compare=False, repr=False)
    first_token_at: float | None = field(default=None, compare=False, repr=False)


Event = Tokens | RequestOutput
