"""Classifiers of `python -m bench.cpu`. Their answers are the scores of all labels, in the labels' order."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import tritone

from ..common.workload import Text, made_up_texts, made_up_words
from .models import SPECIAL, TINY_DECODER, TINY_ENCODER, BenchModel, Scale, padded_inputs

TOLERANCE, BFLOAT16_TOLERANCE = 1e-4, 0.01  # of equal scores


class Classification(BenchModel):
    """A model with a classifier's head."""

    def answers(self, engine: tritone.Engine, items: Sequence[Any], beams: int) -> list[Any]:
        handles = [engine.submit(self.source(item), top_k=None, stream=False) for item in items]
        return [self._in_order(handle.result()) for handle in handles]

    @abstractmethod
    def source(self, item: Any) -> Any:
        """The engine's input: an item's waveform or text."""

    def same(self, one: Any, other: Any, rounded: bool) -> bool:
        """True if all scores are within the type's tolerance."""
        tolerance = BFLOAT16_TOLERANCE if rounded else TOLERANCE
        return max(abs(mine - yours) for mine, yours in zip(one, other, strict=True)) <= tolerance

    def _in_order(self, result: Any) -> list[float]:
        scores = {label.label: label.score for label in result.labels}
        return [scores[f"LABEL_{number}"] for number in range(len(scores))]


class AudioClassification(Classification):
    """wav2vec2-base with twelve labels over a weighted sum of its layers (superb/wav2vec2-base-superb-ks)."""

    title = "wav2vec2-base with a classifier's head (94.6 M parameters)"
    batch_sizes = (1, 4, 8)
    classes = "AutoModelForAudioClassification", "AutoFeatureExtractor"
    peer_classes = "Wav2Vec2ForSequenceClassification", "Wav2Vec2FeatureExtractor"

    def write(self, folder: Path) -> None:
        torch.manual_seed(0)
        sizes = TINY_ENCODER if self.tiny else {}
        config = tritone.Wav2Vec2Config(num_labels=12, use_weighted_layer_sum=True, **sizes)
        tritone.Wav2Vec2ForSequenceClassification(config).save_pretrained(folder)
        # Without a mask, as published beside wav2vec2-base.
        tritone.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)

    def source(self, item: Any) -> Any:
        return item.waveform

    def batch_answers(self, model: Any, processor: Any, batch: Sequence[Any], beams: int) -> list[Any]:
        return model(**padded_inputs(processor, batch, model.dtype)).logits.float().softmax(-1).tolist()


class TextClassification(Classification):
    """bert-base with two labels."""

    title = "bert-base with a classifier's head (109.5 M parameters)"
    batch_sizes = (1, 4, 8, 16, 32)
    classes = "AutoModelForSequenceClassification", "AutoTokenizer"
    peer_classes = "BertForSequenceClassification", "AutoTokenizer"
    unit = "tokens/s"

    def write(self, folder: Path) -> None:
        torch.manual_seed(0)
        config = tritone.BertConfig(num_labels=2, **(TINY_DECODER if self.tiny else {}))
        tritone.BertForSequenceClassification(config).save_pretrained(folder)
        words = [*SPECIAL, *self._words()]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        tritone.BertTokenizer(folder / "vocab.txt").save_pretrained(folder)

    def items(self, scale: Scale) -> Sequence[Text]:
        return made_up_texts(self._words(), *scale.tokens, scale.texts)

    def amount(self, items: Sequence[Text]) -> float:
        """Tokens."""
        return sum(item.tokens for item in items)

    def described(self, items: Sequence[Text]) -> str:
        return f"{len(items)} texts, {self.amount(items)} tokens"

    def source(self, item: Any) -> Any:
        return item.text

    def batch_answers(self, model: Any, processor: Any, batch: Sequence[Any], beams: int) -> list[Any]:
        inputs = processor([item.text for item in batch], padding=True, return_tensors="pt")
        tokens = int(inputs["attention_mask"].sum())
        if tokens != self.amount(batch):
            raise RuntimeError(f"transformers' tokenizer made {tokens} tokens of {self.amount(batch)}")
        return model(**inputs).logits.float().softmax(-1).tolist()

    def _words(self) -> list[str]:
        size = TINY_DECODER["vocab_size"] if self.tiny else tritone.BertConfig().vocab_size
        return made_up_words(size - len(SPECIAL))
