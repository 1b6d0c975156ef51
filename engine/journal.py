"""Journals of recordings in windows: their outputs so far, with which an interrupted one goes on."""

import base64
import hashlib
import json
import logging
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..models.whisper.word_times import TokenTimes
from ..scheduler.request import AudioExcerpt, FinishReason, Hypothesis, RequestOutput
from .session import Part, Session, SessionCall, SessionRequest

_SAMPLES = 64  # of each weight in a model's digest
_DTYPES = ("float32", "int32", "int64")  # of predictions

_log = logging.getLogger(__name__)

_Key = tuple[int, int]  # a session's key, and the number of its request or call with it


class Journal:
    """File of a recording's outputs, one on each line with a checksum, behind a line with their origin.

    A torn last line is dropped, as a kill leaves one; any other damage, or another origin, drops the journal
    with a warning. A disk that is full ends it with a warning, too.

    Args:
        path: path of the file; it and its folder are made with the first output.
        origin: what all outputs depend on besides their requests: weights, dtype, version.
    """

    def __init__(self, path: Path, origin: Mapping[str, str]) -> None:
        self._path, self._origin = path, dict(origin)
        self._is_open = True
        self._begun = False  # the file is there, and ends with a whole line
        self.entries: dict[_Key, tuple[str, Any]] = {}  # with the digest of the request
        try:
            self._read()
        except FileNotFoundError:
            pass
        except OSError as error:
            self._give_up(error)
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            self.restart(f"damaged ({error})")

    def append(self, key: _Key, digest: str, output: Any) -> None:
        """Append an output, or the value of a call; one of an unknown type is left out."""
        record = _encoded(output)
        if record is None or not self._is_open:
            return
        lines = b"" if self._begun else _line({"origin": self._origin})
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Opened each time: of a thousand recordings in flight each would hold a descriptor.
            with self._path.open("ab", buffering=0) as file:
                for line in (lines, _line({"key": key, "request": digest, **record})):
                    if line and file.write(line) != len(line):
                        raise OSError("the disk is full")
            self._begun = True
        except OSError as error:
            self._give_up(error)

    def restart(self, problem: str) -> None:
        """Drop the journal, whose recording starts again."""
        _log.warning("%s: %s; the recording starts again", self._path, problem)
        self.entries, self._begun = {}, False
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._is_open = False
        _log.warning("%s: %s; an interruption would lose its windows", self._path, error.strerror or error)

    def _read(self) -> None:
        data = self._path.read_bytes()
        *lines, torn = data.split(b"\n")
        if torn:
            os.truncate(self._path, len(data) - len(torn))
        records = [_parsed(line) for line in lines]
        if not records:
            return
        if records[0]["origin"] != self._origin:
            self.restart("made with another model, dtype or version")
            return
        self._begun = True
        for record in records[1:]:
            key, number = map(int, record["key"])
            self.entries[key, number] = str(record["request"]), _decoded(record)
        self._drop_unusable()

    def _drop_unusable(self) -> None:
        """Drop what follows a gap, and a last output whose encoder output a call may still need."""
        counts = Counter[int]()
        for key, number in sorted(self.entries):
            if number == counts[key]:
                counts[key] += 1
            else:
                del self.entries[key, number]
        for key, count in counts.items():
            _, last = self.entries[key, count - 1] if count else (None, None)
            if isinstance(last, RequestOutput) and last.encoded is not None:
                del self.entries[key, count - 1]


class JournaledSession(Session):
    """Session whose outputs are written to a journal, and taken from it where they are there.

    A recorded output is given to the session by a call that computes nothing. It counts only for the same
    request: the same samples and options. Where another is asked, the journal is dropped.

    Args:
        session: session of the recording.
        journal: its journal.
    """

    def __init__(self, session: Session, journal: Journal) -> None:
        self._session, self._journal = session, journal
        self._asked = Counter[int]()  # requests and calls by key
        self._to_record: dict[int, tuple[_Key, str]] = {}  # those under way, by key
        self._follow()

    @property
    def is_complete(self) -> bool:
        """True once all parts of the result have been returned."""
        return self._session.is_complete

    def next_request(self) -> SessionRequest | SessionCall | None:
        """Next request or computation of the session, or a call for its recorded output."""
        request = self._session.next_request()
        self._follow()
        if request is None:
            return None
        key = request.key, self._asked[request.key]
        self._asked[request.key] += 1
        digest = _digest(request)
        recorded = self._journal.entries.pop(key, None)
        if recorded is not None:
            if recorded[0] == digest:
                output = recorded[1]
                return SessionCall(request.key, lambda: output)
            self._journal.restart("the recording or an option has changed")
        self._to_record[request.key] = key, digest
        return request

    def receive(self, key: int, output: RequestOutput | Any) -> Sequence[Part]:
        """Record an output that is new, and give it to the session."""
        new = self._to_record.pop(key, None)
        if new is not None:
            self._journal.append(*new, output)
        parts = self._session.receive(key, output)
        self._follow()
        return parts

    def _follow(self) -> None:
        one = self._session
        self.duration, self.warnings, self.speech = one.duration, one.warnings, one.speech
        self.finish_reason = one.finish_reason


def origin_of(model: torch.nn.Module) -> dict[str, str]:
    """Origin of a model's outputs: versions, the device's type, and a digest of its weights' samples."""
    from .. import __version__

    digest = hashlib.blake2b(
        f"{type(model).__name__} {getattr(model, 'config', '')}".encode(), digest_size=16
    )
    for name, weight in model.state_dict().items():
        flat = weight.detach().flatten()
        sample = flat[:: max(len(flat) // _SAMPLES, 1)].cpu().contiguous()
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    device = str(next(iter(model.parameters())).device.type)
    versions = {"tritone": __version__, "torch": str(torch.__version__)}
    return versions | {"device": device, "model": digest.hexdigest()}


def _digest(request: SessionRequest | SessionCall) -> str:
    """Digest of a request; of a call none, since it follows from the outputs before it."""
    if isinstance(request, SessionCall):
        return ""
    inputs = request.inputs
    samples, excerpt = (
        (inputs.samples, inputs.excerpt) if isinstance(inputs, AudioExcerpt) else (inputs, None)
    )
    digest = hashlib.blake2b(repr((request.options, request.keep_encoded, excerpt)).encode(), digest_size=16)
    digest.update(samples.contiguous().numpy().data)
    return digest.hexdigest()


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parsed(line: bytes) -> dict[str, Any]:
    checksum, _, text = line.partition(b" ")
    if len(checksum) != 8 or int(checksum, 16) != zlib.crc32(text):
        raise ValueError("a wrong checksum")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("no record")
    return record


def _encoded(output: Any) -> dict[str, Any] | None:
    """Fields of an output or value in JSON; None for an unknown type."""
    if output is None:
        return {"none": True}
    if isinstance(output, TokenTimes):
        return {"times": [output.seconds, output.probabilities]}
    if not isinstance(output, RequestOutput):
        return None
    predictions = {name: _encoded_tensor(value) for name, value in (output.predictions or {}).items()}
    return {
        "hypotheses": [
            [one.token_ids, one.score, one.finish_reason, one.sum_log_probability, one.token_log_probs]
            for one in output.hypotheses
        ],
        "finish_reason": output.finish_reason,
        "no_speech": output.no_speech_probability,
        "encoded": output.encoded is not None,
        "predictions": None if output.predictions is None else predictions,
    }


def _decoded(record: Mapping[str, Any]) -> Any:
    if "none" in record:
        return None
    if "times" in record:
        seconds, probabilities = record["times"]
        return TokenTimes(tuple(map(float, seconds)), tuple(map(float, probabilities)))
    hypotheses = [
        Hypothesis(
            tuple(map(int, token_ids)),
            float(score),
            FinishReason(reason),
            float(total),
            None if log_probs is None else tuple(map(float, log_probs)),
        )
        for token_ids, score, reason, total, log_probs in record["hypotheses"]
    ]
    predictions = record["predictions"]
    return RequestOutput(
        -1,
        tuple(hypotheses),
        FinishReason(record["finish_reason"]),
        no_speech_probability=record["no_speech"],
        # What needs the encoder's output is recorded, too: the session only sees that there is one.
        encoded=torch.empty(0) if record["encoded"] else None,
        predictions=predictions
        and {str(name): _decoded_tensor(*value) for name, value in predictions.items()},
    )


def _encoded_tensor(values: torch.Tensor) -> list[Any]:
    array = values.numpy()
    if str(array.dtype) not in _DTYPES:
        array = array.astype(np.float32)
    return [str(array.dtype), array.shape, base64.b64encode(array.tobytes()).decode()]


def _decoded_tensor(dtype: str, shape: Sequence[int], data: str) -> torch.Tensor:
    if dtype not in _DTYPES:
        raise ValueError(f"the dtype {dtype}")
    array = np.frombuffer(base64.b64decode(data, validate=True), dtype)
    return torch.from_numpy(array.reshape(shape).copy())
