"""Uploads of the load test: recordings of 1 to 30 s in six formats, broken ones, and clients that leave."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

SUFFIXES = ("wav", "flac", "ogg", "mp3", "m4a", "webm")
MIN_SECONDS, MAX_SECONDS = 1.0, 30.0  # seconds
LEAVING, BROKEN = 0.10, 0.05  # shares of all uploads
PATIENCE = 3.0  # seconds after its last byte in which a client that waits leaves

_RATE = 16_000  # Hz
_OPUS_RATE = 48_000  # Hz, the only one of these that its encoder takes
_SAMPLES = Path(__file__).resolve().parents[2] / "samples"
_GAP = 0.2  # seconds between two sentences
_LEVEL = 0.1  # RMS

Fault = Literal["cut", "garbage", "empty", "field"]
Leaving = Literal["uploading", "waiting"]
_FAULTS: tuple[Fault, ...] = ("cut", "garbage", "empty", "field")
_LEAVINGS: tuple[Leaving, ...] = ("uploading", "waiting")


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload: a file, and the client's conduct."""

    path: str
    seconds: float  # of audio
    fault: Fault | None = None  # a file that is cut, random, or empty; or a field of another name
    leaves: Leaving | None = None
    moment: float = 0.0  # at which it leaves: share of the body, or seconds after all of it


def make_uploads(folder: Path, count: int, seed: int = 0) -> list[Upload]:
    """Write the files of `count` uploads; files and clients depend on the seed alone.

    Args:
        folder: existing folder.
        count: number of uploads; a tenth leave, a twentieth are broken, at least one of each.
    """
    rng = np.random.default_rng(seed)
    sentences = _sentences()
    uploads = list[Upload]()
    for index in range(count):
        seconds = rng.uniform(MIN_SECONDS, MAX_SECONDS)
        path = folder / f"{index:04}.{SUFFIXES[index % len(SUFFIXES)]}"
        write(path, _speech(sentences, seconds, rng))
        uploads.append(Upload(str(path), seconds))
    chosen = rng.permutation(count).tolist()
    leaving, broken = (max(round(share * count), 1) for share in (LEAVING, BROKEN))
    for number, index in enumerate(chosen[:leaving]):
        leaves = _LEAVINGS[number % len(_LEAVINGS)]
        moment = rng.uniform(0, 1 if leaves == "uploading" else PATIENCE)
        uploads[index] = Upload(uploads[index].path, uploads[index].seconds, None, leaves, moment)
    for number, index in enumerate(chosen[leaving : leaving + broken]):
        fault = _FAULTS[number % len(_FAULTS)]
        _damage(Path(uploads[index].path), fault, rng)
        uploads[index] = Upload(uploads[index].path, uploads[index].seconds, fault)
    return uploads


def good(uploads: Sequence[Upload]) -> list[Upload]:
    """Uploads whose clients stay, and whose files and fields are whole."""
    return [one for one in uploads if one.fault is None and one.leaves is None]


def save(uploads: Sequence[Upload], path: Path) -> None:
    """Write uploads as a JSON file, for the client's process."""
    path.write_text(json.dumps([asdict(one) for one in uploads]))


def load(path: Path) -> list[Upload]:
    """Uploads of a file that `save` wrote."""
    return [Upload(**fields) for fields in json.loads(path.read_text())]


def write(path: Path, samples: np.ndarray) -> None:
    """Write float32 [samples] at 16 kHz in the format that the path's suffix stands for."""
    import soundfile

    if path.suffix == ".m4a":
        _encode(path, samples, _RATE, "ipod", "aac")
    elif path.suffix == ".webm":
        _encode(path, samples, _OPUS_RATE, "webm", "libopus")
    else:
        soundfile.write(path, samples, _RATE)


def _sentences() -> list[np.ndarray]:
    """Sentences of `samples/` at 16 kHz and at one level, float32 [samples] each."""
    import soundfile
    import soxr

    found = list[np.ndarray]()
    for path in sorted(_SAMPLES.glob("*/*")):
        if path.suffix not in (".wav", ".flac", ".mp3"):
            continue
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(axis=1), rate, _RATE)
        found.append(mono * np.float32(_LEVEL / np.sqrt(np.mean(np.square(mono)))))
    return found


def _speech(sentences: Sequence[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Random sentences with pauses between them, cut to a length; float32 [samples]."""
    gap = np.zeros(round(_GAP * _RATE), np.float32)
    wanted, parts = round(seconds * _RATE), list[np.ndarray]()
    while sum(map(len, parts)) < wanted:
        parts += [sentences[int(rng.integers(len(sentences)))], gap]
    return np.concatenate(parts)[:wanted].clip(-1, 1)


def _encode(path: Path, samples: np.ndarray, rate: int, container: str, codec: str) -> None:
    """Write one channel with PyAV."""
    import av
    import soxr

    if rate != _RATE:
        samples = soxr.resample(samples, _RATE, rate)
    with av.open(str(path), "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "fltp", "mono")
        frame.sample_rate = rate
        context = stream.codec_context
        fit = av.AudioResampler(context.format, "mono", rate, context.frame_size or 0)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))


def _damage(path: Path, fault: Fault, rng: np.random.Generator) -> None:
    """Damage a file, unless it is the form's field that is wrong."""
    content = path.read_bytes()
    if fault == "cut":
        path.write_bytes(content[: round(len(content) * rng.uniform(0.01, 0.9))])
    elif fault == "garbage":
        path.write_bytes(rng.bytes(len(content)))
    elif fault == "empty":
        path.write_bytes(b"")
