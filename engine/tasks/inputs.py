"""Conversion of recordings and texts to a model's inputs."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..audio.file_objects import read_to_end
from ..audio.limits import max_recording_seconds, max_text_tokens, min_recording_samples
from ..audio.reader import (
    Audio,
    AudioBlocks,
    AudioError,
    TooLongError,
    TooShortError,
    as_array,
    as_samples,
    audio_blocks,
    count_channels,
    estimated_seconds,
    is_ready,
    load_audio,
)
from ..audio.speech import SpeechBlocks, SpeechTimes
from ..audio.vad import load_vad
from ..config import Encoding, EngineConfig, Short
from ..faults import attempt

_MAX_PINNED_SECONDS = 600.0  # of a waveform in pinned memory, which torch keeps for later ones
_ENCODINGS, _SHORT = get_args(Encoding), get_args(Short)
_MAX_EXCERPT = 40  # characters of a text in a message


class Unwanted(Exception):
    """Error that ends the reading of a recording whose result is not wanted any more."""


def while_wanted(blocks: Iterable[np.ndarray], is_wanted: Callable[[], bool]) -> Iterator[np.ndarray]:
    """Blocks of a recording. Raises Unwanted once the result is not wanted any more."""
    for block in blocks:
        if not is_wanted():
            raise Unwanted
        yield block


class TextError(ValueError):
    """Error for an unusable text; the message shows its beginning, the problem and the remedy."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options of reading one recording, as of `Engine.submit`.

    Raises:
        ValueError: a channel that is no index, an unknown encoding or answer to a short recording, or a
            `vad_filter` that is neither True nor False.
    """

    sampling_rate: int | None = None  # Hz, of an array or of headerless audio
    channel: int | None = None  # index from 0; None mixes the channels
    encoding: Encoding | None = None  # of headerless audio
    short: Short = "fail"  # the answer to a recording that is too short for a result
    vad_filter: bool = False  # keep what a voice activity detector takes for speech alone

    def __post_init__(self) -> None:
        channel = self.channel
        if channel is not None and (
            isinstance(channel, bool) or not isinstance(channel, int | np.integer) or channel < 0
        ):
            raise ValueError(f"channel must be an index from 0, or None to mix them all; got {channel!r}")
        if isinstance(channel, np.integer):  # which JSON does not know
            object.__setattr__(self, "channel", int(channel))
        if self.encoding is not None:
            check_choice("encoding", self.encoding, _ENCODINGS)
        check_choice("short", self.short, _SHORT)
        if not isinstance(self.vad_filter, bool):
            raise ValueError(f"vad_filter must be True or False, got {self.vad_filter!r}")

    def with_rate(self, rate: int | None) -> "ReadOptions":
        """Options with the rate in Hz that a source names. Raises AudioError where these name another."""
        if rate is None or rate == self.sampling_rate:
            return self
        if self.sampling_rate is not None:
            raise AudioError(f"the source has a rate of {rate} Hz, and sampling_rate is {self.sampling_rate}")
        return replace(self, sampling_rate=rate)

    def check_unused(self, model_name: str) -> None:
        """Raise ValueError for any option that is set, since the model takes texts."""
        for field in fields(self):
            if (value := getattr(self, field.name)) != field.default:
                raise ValueError(
                    f"{field.name} {value!r} is of recordings, and a {model_name} takes texts; leave it out"
                )


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Raise ValueError for an argument that is not one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of a model for one recording or text."""

    values: Tensor | None  # None: the recording is too short, and its result empty
    duration: float = 0.0  # seconds of audio
    warnings: tuple[str, ...] = ()  # about the reading, for the result
    speech: SpeechTimes | None = None  # of speech that was kept alone; `duration` is its


class Recordings:
    """Reader of recordings: converts files, bytes, arrays and tensors to waveforms at the model's rate.

    Args:
        model: model that offers `encoder_length`.
        feature_extractor: feature extractor of the same checkpoint.
        config: configuration with the limits of a recording's length and of a file object's size.

    Attributes:
        max_seconds: duration of the longest accepted recording.
        min_input_seconds, max_input_seconds: durations of the shortest and longest input of one request.
    """

    def __init__(self, model: Any, feature_extractor: Any, config: EngineConfig) -> None:
        self.front_end = feature_extractor
        self.sampling_rate: int = feature_extractor.sampling_rate  # Hz
        self.max_input_seconds = self.max_seconds = max_recording_seconds(model, feature_extractor, config)
        most = round(self.max_input_seconds * self.sampling_rate)
        self._lengths = range(min_recording_samples(model, feature_extractor, most), most + 1)  # samples
        self.min_input_seconds = self._lengths.start / self.sampling_rate
        self._model = model
        self._pins = model.device.type == "cuda"
        self._max_file_object_bytes = config.max_file_object_bytes

    def check(self, reading: ReadOptions) -> None:
        """Check that recordings can be read so. Raises ValueError where speech cannot be detected."""
        if reading.vad_filter:
            load_vad(self.sampling_rate)

    def snapshot(self, source: Any) -> Any:
        """Snapshot of the source for a reading thread: a path, bytes, or a copy of an array.

        An array is copied because callers may reuse its buffer; a file object is read, since it has one
        position. Whatever the source's own code raises, such as that of `__array__`, is raised.
        """
        if isinstance(source, str | os.PathLike | bytes):
            return source
        if isinstance(source, bytearray | memoryview):
            return bytes(source)
        if hasattr(source, "read"):
            return read_to_end(source, self._max_file_object_bytes)
        return as_samples(source)

    def prepare(self, source: Any, reading: ReadOptions, options: dict[str, Any]) -> Inputs | None:
        """Inputs of a source that needs neither decoding nor conversion, without a thread that reads it.

        An array is checked while it is copied to pinned memory. None for all others; and on a CPU, whose
        steps are long: the loop waits for arrays that are being read, to encode them together.

        Raises:
            AudioError: as `read`.
        """
        if not self._pins or reading.vad_filter or not isinstance(source, np.ndarray | Tensor):
            return None
        array = as_array(source)
        if not is_ready(array, self.sampling_rate, reading.sampling_rate, reading.channel):
            return None
        return self.read(array.view(np.ndarray), reading, options)

    def estimate_seconds(self, source: Any, reading: ReadOptions) -> float:
        """Estimate a snapshot's duration without decoding it; 0 where it cannot be opened.

        At most that of the longest accepted recording, since headers lie.
        """
        if isinstance(source, Inputs):
            return source.duration
        try:
            rate = reading.sampling_rate
            estimate = partial(estimated_seconds, source_rate=rate, encoding=reading.encoding)
            return min(attempt(estimate, source, self.sampling_rate), self.max_seconds)
        except Exception:
            return 0.0

    def max_read_seconds(self, options: dict[str, Any]) -> float:
        """Duration of the longest recording that `read` takes."""
        return self.max_input_seconds

    def split(self, snapshot: Any, reading: ReadOptions) -> list[tuple[Any, ReadOptions]]:
        """Pair a snapshot with each of its channels; an error in its place where they cannot be told."""
        if isinstance(snapshot, Exception):
            return [(snapshot, reading)]
        try:
            count = attempt(partial(count_channels, encoding=reading.encoding), snapshot)
        except Exception as error:
            return [(error, reading)]
        # An array without channels fails as its first.
        return [(snapshot, replace(reading, channel=channel)) for channel in range(max(count, 1))]

    def read(
        self,
        source: Any,
        reading: ReadOptions,
        options: dict[str, Any],
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Inputs:
        """Read a snapshot to a waveform, float32 [samples].

        Args:
            is_wanted: function that returns False once the result is not wanted any more.

        Raises:
            AudioError: the recording cannot be used.
            Unwanted: its speech is looked for, and the result is not wanted any more.
        """
        audio, speech = None, None
        try:
            if reading.vad_filter:
                blocks = self.speech_blocks(source, reading)
                speech = blocks.speech
                audio = self._read_speech(blocks, _name(source), self.max_read_seconds(options), is_wanted)
                if not len(audio.samples):
                    return Inputs(None, 0.0, (*audio.warnings, "no speech was found: no result"), speech)
            else:
                audio = load_audio(
                    source,
                    self.sampling_rate,
                    source_rate=reading.sampling_rate,
                    max_seconds=self.max_read_seconds(options),
                    channel=reading.channel,
                    encoding=reading.encoding,
                    empty=self._empty if self._pins else None,  # a snapshot already is a copy
                )
            self._check_length(source, len(audio.samples))
        except TooShortError as error:
            if reading.short == "fail":
                raise
            samples, warnings = (0, ()) if audio is None else (len(audio.samples), audio.warnings)
            warnings = (*warnings, f"{error.problem}: no result")
            return Inputs(None, samples / self.sampling_rate, warnings, speech)
        duration = len(audio.samples) / self.sampling_rate
        return Inputs(self._waveform(audio.samples), duration, audio.warnings, speech)

    @staticmethod
    def _read_speech(
        blocks: SpeechBlocks, name: str, max_seconds: float, is_wanted: Callable[[], bool]
    ) -> Audio:
        """Speech of a recording, joined. Raises TooLongError for more than `max_seconds` of it."""
        found = [np.empty(0, np.float32)]
        for block in while_wanted(blocks, is_wanted):
            found.append(block)
            if blocks.speech.speech_duration > max_seconds:
                raise TooLongError(
                    f"{name}: more than {max_seconds:.1f} s of speech, the most that is taken at once; "
                    "split it"
                )
        return Audio(np.concatenate(found), tuple(blocks.warnings))

    def speech_blocks(self, source: Any, reading: ReadOptions) -> SpeechBlocks:
        """Blocks of a snapshot's speech, joined. Raises AudioError as `blocks`."""
        return SpeechBlocks(self._all_blocks(source, reading), self.sampling_rate)

    def blocks(self, source: Any, reading: ReadOptions) -> AudioBlocks | SpeechBlocks:
        """Blocks of a snapshot's samples, or of its speech, for a recording that is read in flat memory.

        Raises:
            AudioError: the recording cannot be used.
        """
        return (self.speech_blocks if reading.vad_filter else self._all_blocks)(source, reading)

    def _all_blocks(self, source: Any, reading: ReadOptions) -> AudioBlocks:
        return audio_blocks(
            source,
            self.sampling_rate,
            source_rate=reading.sampling_rate,
            max_seconds=self.max_seconds,
            channel=reading.channel,
            encoding=reading.encoding,
        )

    def _waveform(self, samples: np.ndarray) -> Tensor:
        """Samples as a tensor; for a GPU in pinned memory, so that the loop's thread need not copy them."""
        if isinstance(samples.base, Tensor):
            return samples.base  # of `_empty`
        if self._pins:
            copy = self._empty(len(samples))
            copy[:] = samples
            samples = copy
        return samples.base if isinstance(samples.base, Tensor) else torch.from_numpy(samples)

    def _empty(self, size: int) -> np.ndarray:
        """Array for a waveform: a view of a tensor in pinned memory, unless it is very long."""
        if size > _MAX_PINNED_SECONDS * self.sampling_rate:
            return np.empty(size, np.float32)
        return torch.empty(size, pin_memory=True, dtype=torch.float32).numpy()

    def _check_length(self, source: Any, samples: int) -> None:
        """Raise AudioError for a waveform that is too short or too long for the model."""
        if samples in self._lengths:
            return
        name, duration = _name(source), samples / self.sampling_rate
        frames = self.front_end.frame_count(samples)
        if frames < 1:
            raise TooShortError(f"{name}: {1000 * duration:.1f} ms, shorter than one frame of 25 ms")
        try:
            self._model.encoder_length(frames)
        except ValueError as error:
            if duration >= self.max_input_seconds:
                raise TooLongError(f"{name}: {error}") from None
            problem = str(error).partition(";")[0]  # its remedy is the error's own
            raise TooShortError(f"{name}: {problem}") from None


def _name(source: Any) -> str:
    """Name of a snapshot in messages."""
    if isinstance(source, bytes):
        return getattr(source, "name", f"audio of {len(source)} bytes")
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"array {source.shape}"


class Texts:
    """Reader of texts: encodes strings and pairs of strings to token ids.

    Args:
        model: model that offers `encoder_length` and `has_token_types`.
        tokenizer: tokenizer of the same checkpoint.
    """

    front_end = None
    sampling_rate = None
    max_seconds = None

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self.max_tokens = max_text_tokens(model)

    def snapshot(self, source: Any) -> Any:
        """Snapshot of the source for a reading thread: a string or pair, or a tuple copied from a list."""
        return tuple(source) if isinstance(source, list) else source

    def prepare(self, source: Any, reading: ReadOptions, options: dict[str, Any]) -> Inputs | None:
        """None: tokenizing a text is work for a reading thread."""
        return None

    def estimate_seconds(self, source: Any, reading: ReadOptions) -> float:
        """0: a text has no duration."""
        return 0.0

    def split(self, snapshot: Any, reading: ReadOptions) -> list[tuple[Any, ReadOptions]]:
        """Pair a snapshot with the options: a text has no channels."""
        return [(snapshot, reading)]

    def read(
        self, source: Any, reading: ReadOptions, options: dict[str, Any], is_wanted: Callable[[], bool]
    ) -> Inputs:
        """Encode a snapshot to token ids, int64 [tokens, 1], or [tokens, 2] with token types.

        Raises:
            TextError: the source is not a text, or has more tokens than the model's positions and `truncate`
                is not set.
        """
        if isinstance(source, str):
            text, pair = source, None
        elif isinstance(source, tuple) and len(source) == 2 and all(isinstance(part, str) for part in source):
            text, pair = source
        else:
            given = f"{type(source).__name__} {source!r:.{_MAX_EXCERPT}}"
            raise TextError(f"a text is a str, or a pair (str, str); got {given}")
        excerpt = repr(text if len(text) <= _MAX_EXCERPT else text[: _MAX_EXCERPT - 3] + "...")
        try:
            f"{text}{pair}".encode()
        except UnicodeEncodeError as error:
            raise TextError(
                f"{excerpt}: is not Unicode ({error.reason}); read it with its encoding"
            ) from None
        encoded = self._tokenizer(text, pair, **self._truncation(options))
        columns = [encoded["input_ids"]]
        # Tokenizers may return token types to a model without token types.
        if self._model.has_token_types and "token_type_ids" in encoded:
            columns.append(encoded["token_type_ids"])
        self._check_tokens(columns, excerpt)
        return Inputs(torch.from_numpy(np.array(columns, dtype=np.int64).T.copy()))

    def _truncation(self, options: dict[str, Any]) -> dict[str, Any]:
        limits = [limit for limit in (self.max_tokens, self._tokenizer.model_max_length) if limit is not None]
        # Tokenizers without a limit have 10^30, as transformers' do.
        if options.get("truncate") and min(limits) < 10**20:
            return {"truncation": True, "max_length": min(limits)}
        return {"truncation": False}

    def _check_tokens(self, columns: list[list[int]], excerpt: str) -> None:
        """Raise TextError for tokens that the model has no embedding for; on a GPU they end the process."""
        token_ids, *types = columns
        known_types = getattr(self._model.config, "type_vocab_size", None)  # None: any number
        if types and known_types is not None and max(types[0], default=0) >= known_types:
            raise TextError(
                f"{excerpt}: token types go to {max(types[0])}, and the model knows types 0 to "
                f"{known_types - 1}; give one text, not a pair, or the tokenizer that belongs to the model"
            )
        if not token_ids:
            raise TextError(f"{excerpt}: comes to no tokens; leave it out")
        if max(token_ids) >= self._model.config.vocab_size:
            raise TextError(
                f"{excerpt}: token {max(token_ids)} is beyond the model's {self._model.config.vocab_size}; "
                "give the tokenizer that belongs to it"
            )
        try:
            self._model.check_text(token_ids)
        except ValueError as error:
            raise TextError(f"{excerpt}: {error}") from None
        if self.max_tokens is not None and len(token_ids) > self.max_tokens:
            raise TextError(
                f"{excerpt}: {len(token_ids)} tokens, and the model has positions for {self.max_tokens}; "
                "shorten it, or have it cut: truncate=True, --truncate"
            )
