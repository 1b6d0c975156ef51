"""Whisper's `generate`: recordings of any length, with languages, times and fallbacks, in one batch."""

import secrets
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.runtime.packing import cumulative
from ...scheduler.request import FinishReason, GenerationOptions, Request, RequestOutput
from ..checkpoints.files import Checkpoint
from ..core.generation import GenerationMixin
from ..core.generation_config import GenerationConfig
from ..core.outputs import GenerateOutput
from ..core.padding import one_input
from .compression import token_compression_ratio
from .options import WhisperGenerationConfig, WhisperOptions, resolve_whisper
from .windows import FRAME_SECONDS, Decoded, Segment, Window, sequential_windows, window_prompt
from .word_times import Heads, check_heads, token_times


@dataclass
class _Recording:
    """One row of a call of `generate` on its way: its windows, and the outputs so far."""

    features: Tensor  # [frames, mels]
    frames: int  # number of them that are of the recording
    options: WhisperOptions
    steps: Generator[Window, Decoded, list[Segment]]
    sounding: int | None = None  # frames that the attention mask counts; None without a mask
    language: int | None = None  # its token, once chosen
    attempts: int = 0  # requests for the window in hand
    window: Window | None = None
    outputs: list[RequestOutput] = field(default_factory=list)
    segments: list[Segment] | None = None  # once complete


class WhisperGenerationMixin(GenerationMixin):
    """Mixin that offers Whisper's `generate`, on recordings of any length."""

    generation_config: Any
    generation_config_class: ClassVar[type[GenerationConfig]] = WhisperGenerationConfig
    prepends_start_token: ClassVar[bool] = False

    def whisper_options(
        self, call: dict[str, Any], *, is_long: bool = False, limit: int | None = None
    ) -> WhisperOptions:
        """Resolve the options of one recording.

        Args:
            call: arguments of `generate` by name, None for those not given.
            is_long: True for a recording of several windows.
            limit: the model's `max_length`, where the caller has it: finding it is a walk over modules.

        Raises:
            ValueError: an unknown or unsupported option, or a value out of range.
        """
        return resolve_whisper(
            self.generation_config,
            call,
            limit=self.max_length if limit is None else limit,
            vocabulary=self.config.vocab_size,
            window_frames=self.window_frames,
            is_long=is_long,
        )

    def resolve_options(
        self,
        limit: int | None = None,
        /,
        *,
        default_max_length: int | None = None,
        prompt_length: int = 1,
        **options: Any,
    ) -> GenerationOptions:
        """Options of the request that decodes a recording of up to 30 s; lengths are Whisper's own.

        Raises:
            ValueError: an unknown or unsupported option, or a value out of range.
        """
        resolved = self.whisper_options(options, limit=limit)
        windows = resolved.windows
        prompt = window_prompt((), windows, conditioned=False)
        return resolved.request(Window(0, self.window_frames, prompt, windows.temperatures[0]))

    def generate(  # type: ignore[override]
        self,
        inputs: Tensor | None = None,
        *,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        language: str | Sequence[str] | None = None,
        prompt_ids: Tensor | Sequence[int] | None = None,
        return_segments: bool = False,
        return_token_timestamps: bool = False,
        return_dict_in_generate: bool = False,
        output_scores: bool = False,
        **options: Any,
    ) -> Any:
        """Generate token ids for recordings of any length; each row's result equals that of the row alone.

        Recordings of over 30 s are decoded in windows, each beginning where the last pair of times of the one
        before it ends; windows of all rows share one batch.

        Args:
            inputs: log-mel features [batch, mels, frames]; also by the name `input_features`.
            attention_mask: [batch, frames], 1 for frames of a recording; needed where recordings of over 30 s
                differ in length. Times of tokens are then within the frames it counts.
            language: language of all rows or one for each: a code, an English name or a token. By default
                the model chooses one for each row, if it knows several.
            prompt_ids: tokens of a text that goes before, from `processor.get_prompt_ids`.
            return_segments: return a dict with `sequences` and `segments`, for each row a list of dicts with
                `start` and `end` in seconds, `tokens` and `idxs`, their place in their window's sequence.
            return_token_timestamps: return a dict with `sequences` and `token_timestamps`, float32 [batch,
                longest]: when each token ends, in seconds from the beginning of its window. Segments have
                `token_timestamps` too, from the recording's beginning. Needs `alignment_heads` in
                `generation_config.json`, and encodes every window once more.
            return_dict_in_generate: return a `GenerateOutput` with whole sequences, prompts and end tokens
                included; with times the dict of `return_segments`.
            output_scores: include scores in the `GenerateOutput`.
            **options: options of `GenerationMixin.generate`, and Whisper's: `task` ("transcribe" or
                "translate"), `return_timestamps`, `condition_on_prev_tokens`, `prompt_condition_type`
                ("first-segment" or "all-segments"), `temperature` (a number, or several to try in turn),
                `compression_ratio_threshold`, `logprob_threshold`, `no_speech_threshold`, and `patience`,
                which CTranslate2 has: a beam search ends once num_beams * patience hypotheses have ended.

        Returns:
            int64 [batch, longest], generated tokens without prompts and end tokens, padded on the right.

        Raises:
            ValueError: unsupported options, values out of range, or features of another shape.
        """
        features = one_input(inputs, None, input_features)
        if features is None:
            raise ValueError("give the features to decode: generate(input_features, attention_mask=...)")
        repeats = int(options.pop("num_return_sequences", None) or 1)
        call = {**options, "prompt_ids": _as_list(prompt_ids)}
        heads = self.alignment_heads if return_token_timestamps else None
        recordings = self._recordings(features.to(self.device), attention_mask, language, call, repeats)
        keep_scores = return_dict_in_generate and output_scores
        self._transcribe(recordings, keep_scores)
        with_times = any(one.options.timestamps is not None for one in recordings)
        if return_dict_in_generate and not with_times and heads is None:
            return self._whole_output(recordings, output_scores)
        sequences = _padded([_tokens(one.segments) for one in recordings], self._padding, self.device)
        if heads is None and not return_segments and not return_dict_in_generate:
            return sequences
        output: dict[str, Any] = {"sequences": sequences}
        segments = [[_as_dict(segment) for segment in one.segments or ()] for one in recordings]
        if heads is not None:
            times = [self._token_times(one, heads) for one in recordings]
            output["token_timestamps"] = _padded_times(times, sequences)
            for one, dicts, own in zip(recordings, segments, times, strict=True):
                for segment, found, seconds in zip(one.segments or (), dicts, own, strict=True):
                    found["token_timestamps"] = seconds + segment.window.start * FRAME_SECONDS
        if return_segments or return_dict_in_generate:
            output["segments"] = segments
        return output

    def detect_language(
        self, inputs: Tensor | None = None, *, input_features: Tensor | None = None
    ) -> Tensor:
        """Detect the language of the first 30 s of each recording.

        Args:
            inputs: log-mel features [batch, mels, frames]; also by the name `input_features`.

        Returns:
            int64 [batch], token ids of languages.

        Raises:
            ValueError: a checkpoint that knows English alone.
        """
        features = one_input(inputs, None, input_features)
        if features is None:
            raise ValueError("give the features: detect_language(input_features)")
        known = self.generation_config.read("lang_to_id", {})
        if not known:
            raise ValueError("this checkpoint knows English alone, so there is no language to detect")
        recordings = self._recordings(features.to(self.device), None, None, {"max_new_tokens": 1}, 1)
        for one in recordings:
            one.frames = 1  # its first window alone
            one.steps = _first_window(one.options)
        self._transcribe(recordings)
        return torch.tensor([one.language for one in recordings], device=self.device)

    def _recordings(
        self,
        features: Tensor,
        attention_mask: Tensor | None,
        language: str | Sequence[str] | None,
        call: dict[str, Any],
        repeats: int,
    ) -> list[_Recording]:
        """State of each row of a call, repeated as often as sequences are to be returned.

        Raises:
            ValueError: see `generate`.
        """
        mels = self.config.num_mel_bins
        if features.dim() != 3 or features.shape[1] != mels:
            raise ValueError(f"input_features must be [batch, {mels}, frames], got {list(features.shape)}")
        batch, _, frames = features.shape
        is_long = frames > self.window_frames
        if is_long and batch > 1 and attention_mask is None:
            raise ValueError("attention_mask is needed for several recordings of over 30 s; give it")
        lengths = [frames] * batch
        # Floats are masks too.
        sounding = None if attention_mask is None else attention_mask.long().sum(-1).tolist()
        if is_long and sounding is not None:
            lengths = sounding
        languages: Sequence[str | None] = [language] * batch if isinstance(language, str) else language or ()
        languages = languages or [None] * batch
        if len(languages) != batch:
            raise ValueError(f"language has {len(languages)} entries, and there are {batch} recordings")
        seed, recordings = call.get("seed"), []
        for row in range(batch):
            for repeat in range(repeats):
                own = {**call, "language": languages[row]}
                options = self.whisper_options(own, is_long=is_long)
                if any(options.windows.temperatures):
                    drawn = secrets.randbits(62) if seed is None else int(seed)
                    own["seed"] = (drawn + 15_485_863 * repeat) % 2**63
                    options = self.whisper_options(own, is_long=is_long)
                steps = self._windows(lengths[row], options)
                own_sounding = None if sounding is None else sounding[row]
                recordings.append(_Recording(features[row].T, lengths[row], options, steps, own_sounding))
        return recordings

    def _windows(self, frames: int, options: WhisperOptions) -> Generator[Window, Decoded, list[Segment]]:
        vocabulary = self.config.vocab_size
        return sequential_windows(
            frames, options.windows, lambda tokens: token_compression_ratio(tokens, vocabulary)
        )

    @property
    def window_frames(self) -> int:
        """Number of frames that the encoder reads."""
        return 2 * int(self.config.max_source_positions)

    @property
    def _padding(self) -> int:
        padding = self.generation_config.read("pad_token_id", {})
        return int(self.config.pad_token_id or 0) if padding is None else int(padding)

    def _transcribe(self, recordings: list[_Recording], keep_scores: bool = False) -> None:
        """Decode all windows of recordings, each as soon as the one before it has ended."""
        from ...scheduler.loop import GenerationLoop
        from ...scheduler.runner import ModelRunner

        started, under_way = list[Request](), dict[int, _Recording]()
        for index, one in enumerate(recordings):
            if (first := self._request(index, one, None, keep_scores)) is not None:
                started.append(first)
                under_way[index] = one
        if not started:
            return
        loop = GenerationLoop(ModelRunner.sized_for(self, started, longest=self.max_length))  # type: ignore[arg-type]
        for request in started:
            loop.submit(request)
        number = len(recordings)
        while loop.has_work:
            for event in loop.step():
                if not isinstance(event, RequestOutput):
                    continue
                if event.finish_reason is FinishReason.ERROR and event.error is not None:
                    raise event.error
                recording = under_way.pop(event.request_id)
                following = self._request(number, recording, event, keep_scores)
                if following is not None:
                    loop.submit(following)
                    under_way[number] = recording
                    number += 1

    def _request(
        self, number: int, recording: _Recording, output: RequestOutput | None, keep_scores: bool
    ) -> Request | None:
        """Request for a recording's next window, after the output of the one before; None at its end."""
        decoded = None
        before = recording.window
        if output is not None:
            recording.outputs.append(output)
            decoded = self.decoded(output, recording.options, before)
            if recording.language is None:
                recording.language = decoded.language_token
        try:
            window = next(recording.steps) if decoded is None else recording.steps.send(decoded)
        except StopIteration as end:
            recording.segments = end.value
            return None
        again = before is not None and before.start == window.start
        recording.attempts = recording.attempts + 1 if again else 0
        recording.window = window
        features = self._window_features(recording, window)
        options = recording.options.request(window, recording.language, recording.attempts)
        return Request(number, features, options, keep_scores=keep_scores)

    def _window_features(self, recording: _Recording, window: Window) -> Tensor:
        """Features [frames, mels] of a whole window, zeros behind the recording's end."""
        features = recording.features[window.start : window.start + window.frames]
        return F.pad(features, (0, 0, 0, self.window_frames - features.shape[0]))

    def read_generation_config(self, checkpoint: Checkpoint) -> None:
        """Set `generation_config` from the checkpoint's files, and check its alignment heads."""
        super().read_generation_config(checkpoint)
        if not self.has_alignment_heads:
            return
        try:
            _ = self.alignment_heads
        except ValueError as error:
            source = self.generation_config.source
            raise ValueError(f"{source}: {error}" if source else str(error)) from error

    @property
    def alignment_heads(self) -> Heads:
        """Heads whose cross-attention follows the recording, each a decoder layer and a head, from 0.

        Raises:
            ValueError: a checkpoint without `alignment_heads`, or with heads that the model does not have.
        """
        heads: Heads | None = self.generation_config.read("alignment_heads", {})
        if not heads:
            raise ValueError(
                "times of tokens need alignment_heads, and generation_config.json has none; give the pairs "
                "of a layer and a head that OpenAI names for the checkpoint"
            )
        check_heads(heads, self.config.decoder_layers, self.config.decoder_attention_heads)
        return heads

    @property
    def has_alignment_heads(self) -> bool:
        """True where the checkpoint names its alignment heads."""
        return bool(self.generation_config.read("alignment_heads", {}))

    def _token_times(self, recording: _Recording, heads: Heads) -> list[Tensor]:
        """Times of each segment's tokens, float32 in seconds from the beginning of the segment's window."""
        found, window, times = list[Tensor](), None, torch.empty(0)
        model: Any = self
        for segment in recording.segments or ():
            if segment.window is not window:
                window = segment.window
                prompt = recording.options.prompt(window, recording.language)
                frames = None if recording.sounding is None else recording.sounding - window.start
                features = self._window_features(recording, window).to(self.dtype)
                with torch.inference_mode():
                    encoded, _ = model.encode(features, cumulative([len(features)], features.device))
                found_times = token_times(self, encoded, prompt, segment.decoded.tokens, heads, frames=frames)
                times = torch.tensor(found_times.seconds, dtype=torch.float32)
            found.append(times[segment.tokens_from : segment.tokens_from + len(segment.tokens)])
        return found

    @staticmethod
    def decoded(output: RequestOutput, options: WhisperOptions, window: Window | None) -> Decoded:
        """Result of a window, without its prompt."""
        best, prompt = output.hypotheses[0], len(window.prompt_tokens) if window is not None else 1
        language = None
        if options.choices:
            language = best.token_ids[prompt - len(options.windows.start_tokens) + 1]
        tokens, silence = best.token_ids[prompt:], output.no_speech_probability
        return Decoded(tokens, best.score, silence, language, best.token_log_probs)

    def _whole_output(self, recordings: list[_Recording], output_scores: bool) -> GenerateOutput:
        """Output of recordings without times, each of one window."""
        outputs = [one.outputs[-1] for one in recordings]
        best = [output.hypotheses[0] for output in outputs]
        sequences = _padded([list(one.token_ids) for one in best], self._padding, self.device)
        if not output_scores:
            return GenerateOutput(sequences)
        searches = any(one.options.searches for one in recordings)
        final = torch.tensor([one.score for one in best], device=self.device) if searches else None
        return GenerateOutput(sequences, final, self.scores_by_step([output.scores for output in outputs]))


def _first_window(options: WhisperOptions) -> Generator[Window, Decoded, list[Segment]]:
    yield Window(0, options.windows.window_frames, options.windows.start_tokens, 0.0)
    return []


def _tokens(segments: Sequence[Segment] | None) -> list[int]:
    return [token for segment in segments or () for token in segment.tokens]


def _padded_times(times: list[list[Tensor]], sequences: Tensor) -> Tensor:
    """Times of sequences' tokens, each row padded with its last."""
    padded = torch.zeros(sequences.shape, dtype=torch.float32)
    for row, own in zip(padded, times, strict=True):
        joined = torch.cat([torch.empty(0), *own])
        row[: len(joined)] = joined
        row[len(joined) :] = joined[-1] if len(joined) else 0.0
    return padded.to(sequences.device)


def _as_dict(segment: Segment) -> dict[str, Any]:
    begin = len(segment.window.prompt_tokens) + segment.tokens_from
    return {
        "start": torch.tensor(segment.start, dtype=torch.float64),
        "end": torch.tensor(segment.end, dtype=torch.float64),
        "tokens": torch.tensor(segment.tokens, dtype=torch.int64),
        "idxs": (begin, begin + len(segment.tokens)),
    }


def _as_list(ids: Tensor | Sequence[int] | None) -> list[int] | None:
    if ids is None:
        return None
    return [int(token) for token in (ids.tolist() if hasattr(ids, "tolist") else ids)]


def _padded(sequences: list[list[int]], padding: int, device: torch.device) -> Tensor:
    longest = max(map(len, sequences), default=0)
    rows = [sequence + [padding] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(rows, dtype=torch.int64, device=device).view(len(rows), longest)
