"""Output dataclasses of models, read by field name, by index, or as a tuple, as in transformers."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from torch import Tensor

from .config import PretrainedConfig


@dataclass
class ModelOutput:
    """Base of the output dataclasses: fields that are None are left out of indexing and `to_tuple`."""

    @classmethod
    def from_base(cls, base: "ModelOutput", **own: Any) -> Self:
        """Output of a model with a head: the head's own fields, and those of `base` by the same names."""
        names = {field.name for field in fields(cls)} - own.keys()
        return cls(**own, **{name: getattr(base, name) for name in names if hasattr(base, name)})

    @classmethod
    def from_halves(cls, encoded: Any, decoded: "ModelOutput", **own: Any) -> Self:
        """Output of an encoder-decoder model, combined from the outputs of its encoder and decoder.

        Args:
            encoded: encoder output with last_hidden_state and perhaps hidden_states and attentions; None for
                a call that continues from `past_key_values`.
            decoded: decoder output, which also has past_key_values and cross_attentions.
            **own: further fields of this class, or replacements of the above.
        """
        both = {
            f"{half}_{name}": getattr(output, name, None)
            for half, output in (("encoder", encoded), ("decoder", decoded))
            for name in ("hidden_states", "attentions")
        }
        both["encoder_last_hidden_state"] = getattr(encoded, "last_hidden_state", None)
        return cls.from_base(decoded, **both | own)

    def to_tuple(self) -> tuple[Any, ...]:
        """Values of the fields that are not None, in order."""
        values = (getattr(self, field.name) for field in fields(self))
        return tuple(value for value in values if value is not None)

    def __getitem__(self, key: int | slice | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.to_tuple())

    def keys(self) -> list[str]:
        """Names of the fields that are not None."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def values(self) -> list[Any]:
        """Values of the fields that are not None, in order."""
        return list(self.to_tuple())

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of the fields that are not None."""
        return list(zip(self.keys(), self.to_tuple(), strict=True))


@dataclass
class BaseModelOutput(ModelOutput):
    """Encoder output: last_hidden_state [batch, tokens, d_model], zero where the input was padding."""

    last_hidden_state: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class BaseModelOutputWithPastAndCrossAttentions(ModelOutput):
    """Decoder output: last_hidden_state [batch, target, d_model], zero where there is no token."""

    last_hidden_state: Tensor
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class BaseModelOutputWithPoolingAndCrossAttentions(ModelOutput):
    """Output with a pooler: last_hidden_state [batch, target, width], pooler_output [batch, width].

    last_hidden_state is zero where there is no token.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    past_key_values: Any = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class Seq2SeqModelOutput(ModelOutput):
    """Encoder-decoder output: the decoder's last_hidden_state [batch, target, d_model], encoder states."""

    last_hidden_state: Tensor
    past_key_values: Any = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


@dataclass
class _HeadOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class CausalLMOutput(_HeadOutput):
    """CTC or language-modeling output: logits [batch, tokens, vocabulary]; loss, a scalar or [batch]."""


class SequenceClassifierOutput(_HeadOutput):
    """Classifier output: loss (a scalar, with labels), logits [batch, labels], hidden states."""


@dataclass
class _HeadOutputWithPast(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class SequenceClassifierOutputWithPast(_HeadOutputWithPast):
    """Decoder classifier output: loss (a scalar, with labels), logits [batch, labels], past_key_values."""


@dataclass
class CausalLMOutputWithCrossAttentions(_HeadOutputWithPast):
    """Decoder language-modeling output: loss (a scalar, with labels), logits [batch, target, vocabulary]."""

    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class _Seq2SeqHeadOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Any = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


class Seq2SeqLMOutput(_Seq2SeqHeadOutput):
    """Encoder-decoder output with logits [batch, target, vocabulary], and with labels a scalar loss."""


class Seq2SeqSequenceClassifierOutput(_Seq2SeqHeadOutput):
    """Encoder-decoder classifier output: loss (a scalar, with labels), logits [batch, labels]."""


@dataclass
class GenerateOutput(ModelOutput):
    """Output of `generate`: int64 sequences [returned, longest], padded on the right, and their scores."""

    sequences: Tensor
    sequences_scores: Tensor | None = None
    scores: tuple[Tensor, ...] | None = None


def as_encoder_output(given: Any) -> Any:
    """Convert a tuple or transformers' output object to an encoder output; a `ModelOutput` is unchanged.

    Raises:
        ValueError: the output has no last_hidden_state [batch, tokens, d_model].
    """
    output = given
    if isinstance(given, tuple | list):
        output = BaseModelOutput(*given[:3]) if given else None
    elif not isinstance(given, ModelOutput):
        names = ("last_hidden_state", "hidden_states", "attentions")
        output = BaseModelOutput(*(getattr(given, name, None) for name in names))  # type: ignore[arg-type]
    last = getattr(output, "last_hidden_state", None)
    if not isinstance(last, Tensor) or last.dim() != 3:
        raise ValueError(
            "encoder_outputs must be what the encoder returned, or a tuple that starts with hidden states "
            f"[batch, tokens, d_model]; got {type(given).__name__}"
        )
    return output


def as_asked(output: ModelOutput, return_dict: bool | None, config: PretrainedConfig) -> Any:
    """Output object, or its tuple where the call, or else the configuration, has return_dict=False."""
    return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()
