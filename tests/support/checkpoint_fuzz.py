"""Every field of every JSON file of tiny checkpoints, with bad values: loading works or names the field.

`targets(folder)` writes checkpoints of all families and yields their fields, `attempt` loads one of them with
one bad value, and `fuzz` does so for many; the soak calls it too.

Run by hand: PYTHONPATH=tests/support python -m checkpoint_fuzz FOLDER [STEP [PART OF A TARGET'S NAME]]
"""

import json
import shutil
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import factories
import numpy as np
import sentencepiece
import text_families
from whisper_checkpoints import write_whisper_checkpoint

import tritone
from tritone.models.core.fields import Fields

SECONDS = 5.0  # of processor time that loading a checkpoint may take
MEMORY = 700 * 2**20  # bytes that it may touch: position tables may have 2**26 numbers
DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]
BAD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, -1, -2, 0.0, 1.0, 0.5, -0.5, 1e308, float("nan"), float("inf")),
    *(4097, 2**20 + 1, 2**24, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**9, 10**12, 10**400, -(10**400)),
    *("", "x", "9" * 50, "\ud800", "\0", "gelu", "float16"),
    *([], {}, [[]], [None], [0], [-1], ["x"], {"x": 1}, {"0": "x"}, [10**9], [1, 2, 3], [1] * 1000, DEEP),
]
# Fields by an alias, which messages about two fields name by their own names.
_HOMES: dict[str, tuple[str, ...]] = {
    "num_attention_heads": ("heads", "n_head"),
    "hidden_size": ("d_model", "n_embd", "dim"),
    "num_hidden_layers": ("layers", "n_layer"),
    "max_position_embeddings": ("n_positions",),
    "attention_layers": ("attention_types",),
}
# Messages that name the tensors, or the sizes, since the value is a possible one.
_OTHER_NAMES = ("do not fit its configuration", "describes a model of over", "asks for a table")


@dataclass(frozen=True)
class Target:
    """One field of a JSON file of a checkpoint, and the loading that reads it."""

    folder: Path
    file: str
    field: tuple[str, ...]  # its name, or the path to it
    load: Callable[[Path], Any]

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.file}:{'.'.join(self.field)}"


def targets(folder: Path) -> Iterator[Target]:
    """Write tiny checkpoints of every family to a folder, and give the fields of their files."""
    for home, load in _checkpoints(folder):
        for path in sorted(home.glob("*.json")):
            yield from _fields(home, path, load)


def _fields(home: Path, path: Path, load: Callable[[Path], Any]) -> Iterator[Target]:
    content = json.loads(path.read_text(encoding="utf-8"))
    names = [(name,) for name in content]
    if path.name in ("vocab.json", "added_tokens.json"):
        names = names[:2]
    if path.name == "tokenizer.json":
        names += [("model", name) for name in content["model"]]
        names += [("added_tokens", "0", name) for name in (content["added_tokens"] or [{}])[0]]
    if path.name == "generation_config.json":
        names += [
            (part, next(iter(content[part]))) for part in ("lang_to_id", "task_to_id") if part in content
        ]
    if path.name == "config.json":
        names += [(name,) for name in _declared(content) if name not in content]
        for part in ("encoder", "decoder"):
            names += [(part, name) for name in content.get(part, ())]
        names += [("max_length",), ("num_beams",), ("suppress_tokens",), ("torch_dtype",)]
    if path.name == "tokenizer_config.json":
        names += [
            (name,) for name in ("added_tokens_decoder", "additional_special_tokens", "sp_model_kwargs")
        ]
        names += [
            (name,) for name in ("extra_ids", "unk_id", "target_lang", "tgt_lang", "src_lang", "lang_codes")
        ]
        first = next(iter(content.get("added_tokens_decoder") or {"0": {}}))
        flags = ("content", "special", "lstrip", "normalized")
        names += [("added_tokens_decoder", first, name) for name in flags]
    for field in dict.fromkeys(names):
        yield Target(home, path.name, field, load)


def _declared(content: dict[str, Any]) -> list[str]:
    """Names of all fields of a configuration's family, aliases too."""
    kind: type[Fields] = type(tritone.AutoConfig.for_model(content["model_type"]))
    return [*kind._fields, *kind.attribute_map]


def _checkpoints(folder: Path) -> Iterator[tuple[Path, Callable[[Path], Any]]]:
    writers: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
        "s2t": (factories.write_checkpoint, _load_speech),
        "ctc": (factories.write_ctc_checkpoint, _load_ctc),
        "audio": (factories.write_audio_classifier, _load_audio),
        "text": (factories.write_text_classifier, _load_text),
        "joined": (_write_joined, _load_joined),
        "whisper": (_write_whisper, _load_whisper),
        "whisper-audio": (_write_whisper_classifier, _load_audio),
    }
    for name in ("SEW", "SEWD", "UniSpeech", "UniSpeechSat", "Wav2Vec2"):
        writers[name] = (_encoder_writer(name), getattr(tritone, f"{name}Model").from_pretrained)
    for name in text_families.CLASSIFIERS:
        load = getattr(tritone, f"{name}ForSequenceClassification").from_pretrained
        writers[name] = (text_families.classifier(name).save_pretrained, load)
    for name in ("Speech2Text2", "MBart", "GPT2", "Bert"):
        kind = {"GPT2": "LMHeadModel", "Bert": "LMHeadModel"}.get(name, "ForCausalLM")
        fields = {"is_decoder": True} if name == "Bert" else {}
        load = getattr(tritone, f"{name}{kind}").from_pretrained
        writers[f"{name}-decoder"] = (text_families.make(name, kind, **fields).save_pretrained, load)
    for name in ("Albert", "T5", "XLNet", "MBart", "GPT2", "Speech2Text2"):
        writers[f"{name}-tokenizer"] = (_tokenizer_writer(name), _tokenizer_loader(name))
    for name, (write, load) in writers.items():
        home = folder / name
        home.mkdir(parents=True)
        write(home)
        yield home, load


def _encoder_writer(name: str) -> Callable[[Path], Any]:
    def write(home: Path) -> None:
        fields = {"position_buckets": 4, "max_position_embeddings": 9} if name == "SEWD" else {}
        config = factories.tiny_wav2vec2_config(getattr(tritone, f"{name}Config"), **fields)
        getattr(tritone, f"{name}Model")(config).save_pretrained(home)

    return write


def _tokenizer_writer(name: str) -> Callable[[Path], Any]:
    def write(home: Path) -> None:
        kind = getattr(tritone, f"{name}Tokenizer")
        if name == "GPT2":
            letters = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}
            kind({**letters, "th": 27, "<|endoftext|>": 28}, [("t", "h")]).save_pretrained(home)
        elif name == "Speech2Text2":
            vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "one": 4, "t@@": 5, "wo": 6}
            (home / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
            (home / "merges.txt").write_text("o n\non e</w>\nw o</w>\n", encoding="utf-8")
            kind.from_pretrained(home).save_pretrained(home)
        else:
            train_pieces(home / kind.model_file)
            kind.from_pretrained(home).save_pretrained(home)
            shutil.copy(home / "tokenizer_config.json", home / "special_tokens_map.json")

    return write


def train_pieces(path: Path) -> None:
    """Write a SentencePiece model of about sixty pieces, with normalization rules."""
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([factories.WORDS] * 9),
            model_writer=file,
            vocab_size=60,
            hard_vocab_limit=False,
            model_type="unigram",
            minloglevel=2,
        )


def _write_joined(home: Path) -> None:
    encoder = factories.tiny_wav2vec2_config()
    decoder = factories.tiny_bert_config()
    config = tritone.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, decoder, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3
    )
    factories.seeded(tritone.SpeechEncoderDecoderModel, config).save_pretrained(home)


def _write_whisper(home: Path) -> None:
    write_whisper_checkpoint(
        home,
        alignment_heads=[[1, 0], [1, 1]],
        forced_decoder_ids=[[1, None], [2, 400]],
        temperature=[0.0, 0.5],
        compression_ratio_threshold=2.4,
        logprob_threshold=-1.0,
        no_speech_threshold=0.6,
        begin_suppress_tokens=[220],
        return_timestamps=False,
        language=None,
        task=None,
        prompt_ids=None,
        prompt_condition_type="first-segment",
        condition_on_prev_tokens=False,
    )


def _write_whisper_classifier(home: Path) -> None:
    config = factories.tiny_whisper_config(max_source_positions=50, num_labels=3)
    factories.seeded(tritone.WhisperForAudioClassification, config).save_pretrained(home)
    tritone.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(home)


# Loading, and a little use of what was loaded.


def _hear(processor: Any) -> None:
    extractor = getattr(processor, "feature_extractor", processor)
    extractor(np.ones(800, np.float32), sampling_rate=extractor.sampling_rate, return_tensors="pt")


def _speak(tokenizer: Any) -> None:
    tokenizer.decode([3, 4, 5, 6], skip_special_tokens=True)
    tokenizer.encode("one two")


def _load_speech(home: Path) -> None:
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(home)
    if model.max_length > 21:  # transformers' default
        model.resolve_options()
    processor = tritone.AutoProcessor.from_pretrained(home)
    _hear(processor)
    _speak(processor.tokenizer)


def _load_whisper(home: Path) -> None:
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(home)
    if model.max_length > 21:
        config = model.generation_config
        known = (config.is_multilingual is not False and config.lang_to_id) or {}
        language = {"language": next(iter(known))} if known else {}
        for options in ({}, {"return_timestamps": True}, language):
            model.resolve_options(**options)
    processor = tritone.AutoProcessor.from_pretrained(home)
    _hear(processor)
    _speak(processor.tokenizer)


def _load_ctc(home: Path) -> None:
    tritone.AutoModelForCTC.from_pretrained(home)
    processor = tritone.AutoProcessor.from_pretrained(home)
    _hear(processor)
    _speak(processor.tokenizer)


def _load_audio(home: Path) -> None:
    tritone.AutoModelForAudioClassification.from_pretrained(home)
    _hear(tritone.AutoFeatureExtractor.from_pretrained(home))


def _load_text(home: Path) -> None:
    tritone.AutoModelForSequenceClassification.from_pretrained(home)
    _speak(tritone.AutoTokenizer.from_pretrained(home))


def _load_joined(home: Path) -> None:
    tritone.AutoModelForSpeechSeq2Seq.from_pretrained(home).resolve_options()


def _tokenizer_loader(name: str) -> Callable[[Path], Any]:
    return lambda home: _speak(getattr(tritone, f"{name}Tokenizer").from_pretrained(home))


# The attempt.


def attempt(target: Target, value: Any) -> tuple[str, str | None]:
    """Load a checkpoint with one bad value: (outcome, the fault or None)."""
    path = target.folder / target.file
    saved = path.read_bytes()
    content = json.loads(saved)
    inner: Any = content
    for name in target.field[:-1]:
        inner = inner[int(name)] if isinstance(inner, list) else inner.setdefault(name, {})
    inner[target.field[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        return outcome(lambda: target.load(target.folder), target.folder, target.field[-1])
    finally:
        path.write_bytes(saved)


def outcome(load: Callable[[], Any], where: Path, name: str = "") -> tuple[str, str | None]:
    """Outcome of one loading, and the fault: another error, no names in its message, or too much time."""
    start, fault, before = time.process_time(), None, _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load()
        result = "loaded"
    except (ValueError, OSError) as error:
        message = result = str(error)
        named = any(one in message for one in (name, *_HOMES.get(name, ()))) or any(
            other in message for other in _OTHER_NAMES
        )
        if not named or str(where) not in message:
            fault = f"names no {'field' if not named else 'file'}: {message}"
        elif len(message) > 2000 or len(message.splitlines()) > 2:
            fault = f"too long: {message[:2000]}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        result = type(error).__name__
        fault = traceback.format_exc()
    seconds = time.process_time() - start
    grown = _memory("VmHWM") - before
    if fault is None and grown > MEMORY:
        fault = f"{grown} bytes more memory at the peak"
    if fault is None and seconds > SECONDS:
        fault = f"{seconds:.1f} s of processor time"
    return result, fault


def _memory(name: str) -> int:
    """Bytes in memory of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def fuzz(folder: Path, step: int = 1, part: str = "") -> tuple[Counter[str], list[str]]:
    """Try every `step`-th pair of a field and a bad value; returns counts of outcomes, and the faults."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    number = 0
    for target in targets(folder):
        for value in BAD_VALUES:
            number += 1
            if number % step or part not in target.name:
                continue
            result, fault = attempt(target, value)
            counts["loaded" if result == "loaded" else "refused"] += 1
            if fault is not None:
                faults.append(f"{target.name} = {value!r:.60}: {fault}")
    return counts, faults


if __name__ == "__main__":
    sys.set_int_max_str_digits(0)
    began = time.perf_counter()
    tally, found = fuzz(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1, *sys.argv[3:4])
    print("\n\n".join(found))
    print(tally, len(found), "faults in", round(time.perf_counter() - began, 1), "s")
