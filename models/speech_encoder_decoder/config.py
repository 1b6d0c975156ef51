"""The configuration of a speech encoder with a text decoder: theirs, one in the other."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ..core.config import PretrainedConfig
from ..registry import families_with

# What a configuration without them stands for, as in transformers.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "encoder": {"model_type": "wav2vec2"},
    "decoder": {"model_type": "bert", "is_decoder": True, "add_cross_attention": True},
}
# The kind of class that each part is, in the table of families.
KINDS = {"encoder": "speech_encoder", "decoder": "text_decoder"}


class SpeechEncoderDecoderConfig(PretrainedConfig):
    """An encoder's and a decoder's configurations, and what concerns the two together.

    Args:
        encoder: a speech model's configuration, or its fields with `model_type`; Wav2Vec2's by default.
        decoder: a text model's configuration, or its fields with `model_type`; by default BERT's, as a
            decoder that attends to the encoder.
        **kwargs: fields of the whole, such as decoder_start_token_id and pad_token_id, which labels need.

    Raises:
        ValueError: a `model_type` that is no speech encoder, or no text decoder, here.
    """

    model_type: ClassVar[str] = "speech-encoder-decoder"

    def __init__(
        self,
        encoder: PretrainedConfig | Mapping[str, Any] | None = None,
        decoder: PretrainedConfig | Mapping[str, Any] | None = None,
        is_encoder_decoder: bool = True,
        **kwargs: Any,
    ) -> None:
        self.encoder = _part("encoder", encoder)
        self.decoder = _part("decoder", decoder)
        self.is_encoder_decoder = is_encoder_decoder
        super().__init__(**kwargs)

    @classmethod
    def from_encoder_decoder_configs(
        cls, encoder_config: PretrainedConfig, decoder_config: PretrainedConfig, **kwargs: Any
    ) -> Self:
        """The configuration of an encoder with a decoder, which is told to be one, as in transformers.

        Args:
            encoder_config: copied.
            decoder_config: gets `is_decoder` and `add_cross_attention`, and is copied.
            **kwargs: fields of the whole.

        Raises:
            ValueError: as the constructor.
        """
        decoder_config.is_decoder = True
        decoder_config.add_cross_attention = True
        return cls(encoder=encoder_config.to_dict(), decoder=decoder_config.to_dict(), **kwargs)

    def get_text_config(self, decoder: bool | None = None) -> PretrainedConfig:
        """The decoder's configuration, which has the vocabulary."""
        return self.decoder

    def to_dict(self) -> dict[str, Any]:
        """Every field, those of encoder and decoder under their names, as in `config.json`."""
        parts = {"encoder": self.encoder.to_dict(), "decoder": self.decoder.to_dict()}
        return {**super().to_dict(), **parts}


def _part(name: str, given: Any) -> PretrainedConfig:
    """The configuration of one part.

    Raises:
        ValueError: of a family that has no such part here, or no configuration.
    """
    families = {family.model_type: family for family in families_with(KINDS[name])}
    fields = _DEFAULTS[name] if given is None else given
    if isinstance(fields, Mapping):
        model_type = fields.get("model_type", _DEFAULTS[name]["model_type"])
    else:
        model_type = getattr(fields, "model_type", None)
    if not isinstance(model_type, str) or model_type not in families:
        what = (
            f"model_type {model_type!r}" if model_type else f"no configuration but a {type(given).__name__}"
        )
        raise ValueError(f"the {name} has {what}; a {name} here is one of {', '.join(sorted(families))}")
    kind = families[model_type].load("config")
    if isinstance(fields, kind):
        return fields
    return kind.from_dict(fields if isinstance(fields, Mapping) else fields.to_dict())
