"""Waveform encoders with a head: the base of CTC models and classifiers."""

from typing import Any, ClassVar, cast

from ..core.model import PretrainedModel
from .encoder import WaveformEncoder


class HeadedEncoder(PretrainedModel):
    """Waveform encoder with a head; a family gives its `base_class`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    base_class: ClassVar[type[WaveformEncoder]]
    base_name: ClassVar[str]  # the encoder's attribute, and its name in checkpoints

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "base_class"):  # not yet in the class of a kind of head
            cls.config_class = cls.base_class.config_class
            cls.base_prefix = cls.base_class.base_prefix
            cls.base_name = str(cls.base_prefix).removesuffix(".")
            # A checkpoint of the encoder alone has its names without a prefix.
            cls.renamed_keys = cls.base_class.renamed_keys

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_name, self.base_class(config))

    @property
    def base(self) -> WaveformEncoder:
        """The model without its head."""
        return cast(WaveformEncoder, getattr(self, self.base_name))

    def parts(self) -> dict[str, PretrainedModel]:
        """The encoder, by its name."""
        return {self.base_name: self.base}

    def encoder_length(self, samples: int) -> int:
        """Tokens for so many samples.

        Raises:
            ValueError: too few for one.
        """
        return self.base.length(samples)

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutions on the waveform from training."""
        self.base.freeze_feature_encoder()

    def freeze_base_model(self) -> None:
        """Exclude all but the head from training."""
        self.base.requires_grad_(False)
