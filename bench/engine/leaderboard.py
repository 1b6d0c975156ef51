"""Speed by the protocol of the Open ASR Leaderboard, beside transformers where it is installed.

    python -m bench.engine.leaderboard [--device cuda|cpu] [--seconds 190] [--output FOLDER]

Audio is in memory. A batch goes through processor, model and decoding to texts, timed together between two
events; RTFx is seconds of audio over the sum of the batches' times. bfloat16 on a GPU, float32 on the CPU.
wav2vec2-base and -large, hubert-large and Speech2Text small, medium and large have random weights, so that
speed alone is measured; texts have 3.4 tokens a second of audio. Recordings have LibriSpeech's lengths and
come sorted by length, longest first.

Three ways: Tritone's engine with one batch of all recordings, Tritone's model called as transformers' is, and
transformers, both with each batch size. Writes leaderboard.json after each row, and leaderboard.md. Rows that
do not fit into the given seconds are left out, and named.

    python -m bench.engine.leaderboard --quick     a smoke run: tiny models, few recordings
"""

import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import tritone

from ..common.command import engine_parser, parse_engine
from ..common.machine import about_machine, synchronize
from ..common.output import markdown, write_json
from ..common.recognizers import length_of, spread
from ..common.shapes import RATE
from ..common.workload import SIZES, InMemoryProcessor, Recording, Recordings, WordTokenizer, audio_seconds

PEER = "transformers"
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
}
_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the table: its name, family as in class names, and its configuration's fields."""

    name: str
    family: str
    fields: dict[str, Any]

    @property
    def generates(self) -> bool:
        return self.family == "Speech2Text"

    @property
    def model_class(self) -> str:
        return f"{self.family}For{'ConditionalGeneration' if self.generates else 'CTC'}"


MODELS = (
    Entry("wav2vec2-base", "Wav2Vec2", {}),
    Entry("Speech2Text small", "Speech2Text", SIZES["small"]),
    Entry("hubert-large", "Hubert", _LARGE),
    Entry("Speech2Text medium", "Speech2Text", SIZES["medium"]),
    Entry("wav2vec2-large", "Wav2Vec2", _LARGE),
    Entry("Speech2Text large", "Speech2Text", SIZES["large"]),
)
TINY_MODELS = (
    Entry("wav2vec2-tiny", "Wav2Vec2", _TINY),
    Entry("hubert-tiny", "Hubert", _TINY),
    Entry("Speech2Text tiny", "Speech2Text", SIZES["tiny"]),
)


@dataclass(frozen=True, slots=True)
class Row:
    """Speed of one way to run a model."""

    model: str
    way: str
    batch: int
    rtfx: float
    seconds: float
    recordings: int

    def __str__(self) -> str:
        return (
            f"{self.model}, {self.way}, batch {self.batch}: RTFx {self.rtfx:,.0f} "
            f"({self.recordings} recordings in {self.seconds:.2f} s)"
        )


class Clock:
    """Seconds between two moments of a device's stream: CUDA events, or the host's clock on the CPU."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"

    def time(self, call: Callable[[], Any]) -> float:
        """Seconds of a call, with all the work that it launches."""
        if not self._on_gpu:
            begin = time.perf_counter()
            call()
            return time.perf_counter() - begin
        torch.cuda.synchronize()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        torch.cuda.synchronize()  # other streams' work too
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e-3


class Library:
    """A model with random weights and its processor, of tritone or of transformers.

    Args:
        module: the library.
        entry: model to build.
        folder: place for a vocabulary.
    """

    def __init__(self, module: Any, entry: Entry, device: torch.device, folder: Path) -> None:
        self.entry, self.device = entry, device
        fields = entry.fields if entry.generates else {"vocab_size": len(LETTERS), **entry.fields}
        config = getattr(module, f"{entry.family}Config")(**fields)
        torch.manual_seed(0)
        with torch.device(device):
            model = getattr(module, entry.model_class)(config)
        self.model = model.to(device, torch.bfloat16 if device.type == "cuda" else torch.float32).eval()
        if entry.generates:
            tokenizer: Any = WordTokenizer(config.vocab_size)
            self.processor = InMemoryProcessor(module.Speech2TextFeatureExtractor(), tokenizer)
            return
        (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
        tokenizer = module.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
        extractor = module.Wav2Vec2FeatureExtractor(return_attention_mask=True)
        self.processor = module.Wav2Vec2Processor(extractor, tokenizer)

    @torch.inference_mode()
    def transcribe(self, batch: Sequence[Recording]) -> list[str]:
        """Texts of a padded batch, as the leaderboard's script has it."""
        inputs = self.processor(
            [one.waveform for one in batch],
            sampling_rate=RATE,
            padding=True,
            return_tensors="pt",
            return_attention_mask=True,
        )
        name = "input_features" if self.entry.generates else "input_values"
        values = inputs[name].to(self.device, self.model.dtype)
        mask = inputs["attention_mask"].to(self.device)
        if self.entry.generates:
            tokens = max(one.tokens for one in batch)
            ids = self.model.generate(
                values, attention_mask=mask, num_beams=1, max_new_tokens=tokens, min_new_tokens=tokens
            )
        else:
            ids = self.model(values, attention_mask=mask).logits.argmax(-1)
        return self.processor.batch_decode(ids, skip_special_tokens=True)


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = engine_parser(__doc__, Path("bench/results/leaderboard"), "tiny models and few recordings")
    parser.add_argument("--seconds", type=float, default=190, help="in which to end, about")
    parser.add_argument("--no-peers", action="store_true", help="without transformers")
    arguments = parse_engine(parser, given)
    device = torch.device(arguments.device)
    models, count, stretch, batches = MODELS, 1024, 1.0, (64, 256)
    if arguments.quick:
        models, count, stretch, batches = TINY_MODELS, 4, 0.1, (2,)
    elif device.type == "cpu":
        count, batches = 8, (4,)
    recordings = sorted(Recordings().like_librispeech(count, stretch), key=length_of, reverse=True)
    torch.backends.cuda.matmul.allow_tf32 = True  # as there, of what is left in float32
    end = time.monotonic() + arguments.seconds
    rows: list[Row] = []
    absent: list[str] = []
    for number, entry in enumerate(models):
        share = time.monotonic() + max(end - time.monotonic(), 0.0) / (len(models) - number)
        for row in measured(entry, device, recordings, batches, share, not arguments.no_peers):
            if isinstance(row, Row):
                rows.append(row)
            else:
                absent.append(row)
            print(row, flush=True)
            write(rows, absent, device, arguments.output)
    print(f"\n{table(rows)}\n{arguments.output}")
    return 1 if any(reason.startswith("FAIL") for reason in absent) else 0


def measured(
    entry: Entry,
    device: torch.device,
    recordings: Sequence[Recording],
    batches: Sequence[int],
    end: float,
    peers: bool,
) -> Iterator[Row | str]:
    """Rows of a model; in place of one that fails or has no library, the reason."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield row_of(entry, "engine", len(recordings), lambda: by_engine(entry, device, folder, recordings))
        libraries = {"called as transformers": "tritone"} | ({PEER: PEER} if peers else {})
        ways = [(way, module, size) for way, module in libraries.items() for size in batches]
        for index, (way, module, size) in enumerate(ways):
            share = (end - time.monotonic()) / (len(ways) - index)
            run = partial(by_batches, module, entry, device, folder, recordings, size, share)
            yield row_of(entry, way, size, run)


def row_of(entry: Entry, way: str, batch: int, run: Callable[[], tuple[float, list[Recording]]]) -> Row | str:
    """The row of a run, or the reason for its absence."""
    name = f"{entry.name}, {way}, batch {batch}"
    try:
        seconds, done = run()
        return Row(entry.name, way, batch, audio_seconds(done) / seconds, seconds, len(done))
    except Exception as error:
        label = "left out" if way == PEER else "FAIL"
        return f"{label} {name}: {type(error).__name__}: {error}"
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def by_engine(
    entry: Entry, device: torch.device, folder: Path, recordings: Sequence[Recording]
) -> tuple[float, list[Recording]]:
    """Seconds of all recordings through an engine, after a first run that warms up."""
    library = Library(tritone, entry, device, folder)
    sizes: dict[str, Any] = {}
    if entry.generates and device.type == "cuda":
        sizes = {"num_rows": len(recordings)}
    with tritone.Engine(library.model, processor=library.processor, **sizes) as engine:

        def run() -> None:
            handles = []
            for one in recordings:
                options = {"max_new_tokens": one.tokens, "min_new_tokens": one.tokens}
                given = options if entry.generates else {}
                handles.append(engine.submit(one.waveform, stream=False, **given))
            for handle in handles:
                error = handle.result().error
                if error is not None:
                    raise error

        run()
        return Clock(device).time(run), list(recordings)


def by_batches(
    module: str,
    entry: Entry,
    device: torch.device,
    folder: Path,
    recordings: Sequence[Recording],
    size: int,
    seconds: float,
) -> tuple[float, list[Recording]]:
    """Seconds and recordings of batches of `size`, spread over all lengths, until the time is over."""
    begin = time.monotonic()
    library = Library(import_module(module), entry, device, folder)
    batches = [recordings[first : first + size] for first in range(0, len(recordings), size)]
    library.transcribe(batches[-1])
    synchronize(device)
    clock, spent = Clock(device), 0.0
    done: list[Recording] = []
    for index in spread(len(batches)):
        if done and time.monotonic() - begin + spent / len(done) * size > seconds:
            break
        spent += clock.time(partial(library.transcribe, batches[index]))
        done += batches[index]
    return spent, done


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, with each row's speed over that of transformers at its best."""
    peers: dict[str, float] = {}
    for row in rows:
        if row.way == PEER:
            peers[row.model] = max(peers.get(row.model, 0.0), row.rtfx)
    head = ("model", "way", "batch", "RTFx", "times transformers")
    cells = [
        (
            row.model,
            row.way,
            str(row.batch),
            f"{row.rtfx:,.0f}",
            f"{row.rtfx / peers[row.model]:.2f}" if row.model in peers else "",
        )
        for row in rows
    ]
    return markdown(head, cells, padded=True)


def write(rows: Sequence[Row], absent: Sequence[str], device: torch.device, folder: Path) -> None:
    about = about_machine(device)
    results = {"about": about, "rows": [asdict(row) for row in rows], "absent": list(absent)}
    write_json(folder / "leaderboard.json", results)
    text = f"# Speed by the Open ASR Leaderboard's protocol\n\n`{about['command']}`\n\n{table(rows)}\n"
    (folder / "leaderboard.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
