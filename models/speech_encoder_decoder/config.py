"""Configuration of a speech encoder joined to a text decoder."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

from ..core.config import PretrainedConfig
from ..core.field_types import shown
from ..core.fields import field
from ..registry import families_with

# Configurations of parts that are not given, as in transformers.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "wav2vec2"},
    "decoder": {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
}
# Field of `Family` with the class of each part.
KINDS = {"encoder": "speech_encoder", "decoder": "text_decoder"}


def _part(name: str, given: Any) -> PretrainedConfig:
    """Make the encoder's or decoder's configuration from a dict of its fields, another object, or None.

    Raises:
        ValueError: the family offers no such part, or `given` is no configuration.
    """
    families = {family.model_type: family for family in families_with(KINDS[name])}
    fields = _DEFAULTS[name] if given is None else given
    if isinstance(fields, Mapping):
        model_type = fields.get("model_type", _DEFAULTS[name]["model_type"])
    else:
        model_type = getattr(fields, "model_type", None)
    if not isinstance(model_type, str) or model_type not in families:
        what = (
            f"model_type {shown(model_type)}"
            if model_type or isinstance(fields, Mapping)
            else f"no configuration but a {type(given).__name__}"
        )
        raise ValueError(f"the {name} has {what}; a {name} here is one of {', '.join(sorted(families))}")
    kind = families[model_type].load("config")
    if isinstance(fields, kind):
        return fields
    try:
        return kind.from_dict(fields if isinstance(fields, Mapping) else fields.to_dict())
    except ValueError as error:
        raise ValueError(f"in the {name}, {error}") from error
    except TypeError as error:
        raise ValueError(f"the {name} has fields that make no configuration: {error}") from error


class SpeechEncoderDecoderConfig(PretrainedConfig):
    """Configuration of a speech encoder and a text decoder joined in one model.

    `encoder` and `decoder` are each a configuration, or a dict of its fields with `model_type`. Calls with
    labels need the joint configuration's decoder_start_token_id and pad_token_id.
    """

    model_type = "speech-encoder-decoder"

    encoder: PretrainedConfig = field(None, convert=partial(_part, "encoder"))  # wav2vec 2.0's by default
    # BERT's by default, as a decoder with cross-attention.
    decoder: PretrainedConfig = field(None, convert=partial(_part, "decoder"))
    is_encoder_decoder: bool = True

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PretrainedConfig, decoder_config: PretrainedConfig, **kwargs: Any
    ) -> Self:
        """Join the configurations of an encoder and a decoder, as in transformers.

        Args:
            encoder_config: configuration of the encoder, which is copied.
            decoder_config: configuration of the decoder; `is_decoder` and `add_cross_attention` are set to
                True in it, and it is copied.
            **kwargs: fields of the joint configuration.

        Raises:
            ValueError: an error of the constructor.
        """
        decoder_config.is_decoder = True
        decoder_config.add_cross_attention = True
        return cls(encoder=encoder_config.to_dict(), decoder=decoder_config.to_dict(), **kwargs)

    def get_text_config(self, decoder: bool | None = None) -> PretrainedConfig:
        """Configuration of the decoder, which defines the vocabulary; `decoder` is ignored."""
        return self.decoder

    def to_dict(self) -> dict[str, Any]:
        """Fields as in config.json, with those of the parts nested under `encoder` and `decoder`."""
        parts = {"encoder": self.encoder.to_dict(), "decoder": self.decoder.to_dict()}
        return {**super().to_dict(), **parts}
