"""Speech recognizers of `python -m bench.cpu`: checkpoints with random weights, run by both libraries.

Classifiers are in classifiers.py."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers

import tritone
from tritone.kernels.attention.kv_cache import PAGE_SIZE

from ..common.recognizers import check_lengths, sorted_batches
from ..common.shapes import RATE
from ..common.workload import (
    Recording,
    Recordings,
    audio_seconds,
    build_model,
    made_up_words,
    write_processor,
)

# For smoke runs; the published size is the configuration's default.
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TINY_ENCODER = TINY | {
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
TINY_DECODER = TINY | {"vocab_size": 300}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Extent of a run."""

    shortest: float  # seconds of a recording
    longest: float
    count: int  # recordings
    tokens: tuple[int, int]  # of the shortest and the longest text
    texts: int
    dtypes: tuple[str, ...]  # of Tritone's models
    repeats: int  # rounds that count, at most
    warm_up: int  # shortest items, for the round that does not count; all if there are fewer
    seconds: float  # in which another round has to end


class BenchModel(ABC):
    """A model to be timed, of its published size or `tiny` for smoke runs."""

    title: ClassVar[str]
    classes: ClassVar[tuple[str, str]]  # of tritone: model and processor
    peer_classes: ClassVar[tuple[str, str]]  # of transformers
    batch_sizes: ClassVar[tuple[int, ...]]  # of transformers
    searches: ClassVar[bool] = False  # True if it has beams
    unit: ClassVar[str] = "RTFx"  # of its speed: `amount` a second

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write a checkpoint that both libraries read."""

    def items(self, scale: Scale) -> Sequence[Any]:
        """Its inputs: recordings, or texts."""
        return Recordings().evenly(scale.shortest, scale.longest, scale.count)

    def amount(self, items: Sequence[Any]) -> float:
        """Total size of the items: seconds of audio, or tokens."""
        return audio_seconds(items)

    def described(self, items: Sequence[Any]) -> str:
        """Number and total size of the items, in words."""
        return f"{len(items)} recordings, {audio_seconds(items):.0f} s of audio"

    def engine(self, folder: Path, dtype: str, items: Sequence[Any], beams: int) -> tritone.Engine:
        """An engine with room for all items at once, as a server would have."""
        model, processor = load(tritone, self.classes, folder, dtype)
        return tritone.Engine(model, processor=processor, **self.cache_sizes(items, beams))

    def cache_sizes(self, items: Sequence[Any], beams: int) -> dict[str, int]:
        """The engine's rows and pages, of models that have a cache."""
        return {}

    @abstractmethod
    def answers(self, engine: tritone.Engine, items: Sequence[Any], beams: int) -> list[Any]:
        """Tritone's answers for items submitted one after the other."""

    def peer(self, folder: Path, dtype: str) -> tuple[Any, Any]:
        """transformers' model and processor."""
        model, processor = load(transformers, self.peer_classes, folder, dtype)
        return model.eval(), processor

    @abstractmethod
    def batch_answers(self, model: Any, processor: Any, batch: Sequence[Any], beams: int) -> list[Any]:
        """transformers' answers for one padded batch."""

    @torch.inference_mode()
    def peer_answers(
        self,
        model: Any,
        processor: Any,
        items: Sequence[Any],
        beams: int,
        size: int,
        by_length: bool = True,
    ) -> list[Any]:
        """transformers' answers in the items' order, by batches of `size` neighbors in length or in order."""
        answers: dict[int, Any] = {}
        given = [items[start : start + size] for start in range(0, len(items), size)]
        for batch in sorted_batches(items, size) if by_length else given:
            found = self.batch_answers(model, processor, batch, beams)
            answers.update({id(one): answer for one, answer in zip(batch, found, strict=True)})
        return [answers[id(one)] for one in items]

    def same(self, one: Any, other: Any, rounded: bool) -> bool:
        """True if two answers are equal; texts must be so to the letter, `rounded` by bfloat16 or not."""
        return bool(one == other)


class GenerativeBenchModel(BenchModel):
    """A model that decodes token by token, as many tokens as speech of that length has: the end token is
    suppressed."""

    batch_sizes = (1, 4, 8)
    classes = "AutoModelForSpeechSeq2Seq", "AutoProcessor"
    searches = True
    end_token: ClassVar[int]
    tokens_a_second: ClassVar[int]  # of the encoder
    input_name: ClassVar[str]

    def cache_sizes(self, recordings: Sequence[Recording], beams: int) -> dict[str, int]:
        pages = sum(
            math.ceil(one.seconds * self.tokens_a_second / PAGE_SIZE)
            + beams * math.ceil((one.tokens + 1) / PAGE_SIZE)
            for one in recordings
        )
        return {"num_rows": beams * len(recordings), "num_pages": pages}

    def answers(self, engine: tritone.Engine, recordings: Sequence[Recording], beams: int) -> list[str]:
        handles = [
            engine.submit(
                one.waveform,
                num_beams=beams,
                max_new_tokens=one.tokens,
                suppress_tokens=[self.end_token],
                stream=False,
            )
            for one in recordings
        ]
        results = [handle.result() for handle in handles]
        check_lengths([len(result.token_ids) - 1 for result in results], [one.tokens for one in recordings])
        return [result.text for result in results]

    def batch_answers(self, model: Any, processor: Any, batch: Sequence[Recording], beams: int) -> list[str]:
        inputs = padded_inputs(processor, batch, model.dtype)
        tokens = max(one.tokens for one in batch)
        ids = model.generate(
            inputs[self.input_name],
            attention_mask=inputs.get("attention_mask"),
            num_beams=beams,
            max_new_tokens=tokens,
            suppress_tokens=[self.end_token],
        )
        check_lengths([ids.shape[1] - 1], [tokens])
        # Tokens beyond a recording's own length come from its longer neighbors.
        own = [row[: one.tokens + 1] for row, one in zip(ids, batch, strict=True)]
        return processor.batch_decode(own, skip_special_tokens=True)


class Speech2Text(GenerativeBenchModel):
    """The default Speech2TextConfig, and 10,000 made-up words."""

    title = "Speech2Text small (29.5 M parameters)"
    peer_classes = "Speech2TextForConditionalGeneration", "Speech2TextProcessor"
    batch_sizes = (1, 4, 8, 16)
    end_token = 2
    tokens_a_second = 25
    input_name = "input_features"

    def write(self, folder: Path) -> None:
        model = build_model("tiny" if self.tiny else "small", torch.device("cpu"), torch.float32)
        model.save_pretrained(folder)
        write_processor(folder, model.config.vocab_size)


class SpeechEncoderDecoder(GenerativeBenchModel):
    """wav2vec2-base as the encoder of bert-base, with cross-attention."""

    title = "wav2vec2-base with bert-base as decoder (232 M parameters)"
    peer_classes = "SpeechEncoderDecoderModel", "Wav2Vec2Processor"
    end_token = SPECIAL.index("[SEP]")
    tokens_a_second = 50
    input_name = "input_values"

    def write(self, folder: Path) -> None:
        torch.manual_seed(0)
        encoder = tritone.Wav2Vec2Config(**(TINY_ENCODER if self.tiny else {}))
        decoder = tritone.BertConfig(**(TINY_DECODER if self.tiny else {}))
        config = tritone.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
            encoder,
            decoder,
            decoder_start_token_id=SPECIAL.index("[CLS]"),
            pad_token_id=SPECIAL.index("[PAD]"),
            eos_token_id=self.end_token,
        )
        tritone.SpeechEncoderDecoderModel(config).save_pretrained(folder)
        words = [*SPECIAL, *made_up_words(decoder.vocab_size - len(SPECIAL))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        write_waveform_processor(folder, tritone.BertTokenizer(folder / "vocab.txt"))


class Wav2Vec2CTC(BenchModel):
    """wav2vec2-base with a vocabulary of 32 letters, as facebook/wav2vec2-base-960h."""

    title = "wav2vec2-base CTC (94.4 M parameters)"
    classes = "AutoModelForCTC", "AutoProcessor"
    peer_classes = "Wav2Vec2ForCTC", "Wav2Vec2Processor"
    batch_sizes = (1, 4, 8)

    def write(self, folder: Path) -> None:
        torch.manual_seed(0)
        config = tritone.Wav2Vec2Config(vocab_size=len(LETTERS), **(TINY_ENCODER if self.tiny else {}))
        tritone.Wav2Vec2ForCTC(config).save_pretrained(folder)
        (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
        write_waveform_processor(folder, tritone.Wav2Vec2CTCTokenizer(folder / "vocab.json"))

    def answers(self, engine: tritone.Engine, recordings: Sequence[Recording], beams: int) -> list[str]:
        handles = [engine.submit(one.waveform, stream=False) for one in recordings]
        return [handle.result().text for handle in handles]

    def batch_answers(self, model: Any, processor: Any, batch: Sequence[Recording], beams: int) -> list[str]:
        return processor.batch_decode(model(**padded_inputs(processor, batch, model.dtype)).logits.argmax(-1))


def load(library: Any, names: tuple[str, str], folder: Path, dtype: str) -> tuple[Any, Any]:
    """A library's model and processor of a checkpoint."""
    model, processor = (getattr(library, name) for name in names)
    return model.from_pretrained(folder, dtype=dtype), processor.from_pretrained(folder)


def write_waveform_processor(folder: Path, tokenizer: Any) -> None:
    """Write a processor without an attention mask, as published beside wav2vec2-base: less work for
    transformers."""
    extractor = tritone.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    tritone.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)


def padded_inputs(processor: Any, batch: Sequence[Recording], dtype: torch.dtype) -> Any:
    """The output of transformers' processor for a batch, in the model's type."""
    waveforms = [one.waveform for one in batch]
    return processor(waveforms, sampling_rate=RATE, padding=True, return_tensors="pt").to(dtype)
