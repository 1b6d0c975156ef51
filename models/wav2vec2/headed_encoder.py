"""Waveform encoder with a head: base class of CTC models and audio classifiers."""

from typing import Any, ClassVar, cast

from ..core.model import PretrainedModel
from .encoder import WaveformEncoder


class HeadedEncoder(PretrainedModel):
    """Base class of models with a waveform encoder and a head; a family's model sets its `base_class`."""

    base_class: ClassVar[type[WaveformEncoder]]
    base_name: ClassVar[str]  # attribute of the encoder, and its prefix in checkpoints

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "base_class"):  # abstract classes such as `CTCModel` have none
            cls.config_class = cls.base_class.config_class
            cls.base_prefix = cls.base_class.base_prefix
            cls.base_name = str(cls.base_prefix).removesuffix(".")
            # The patterns fit names without the encoder's prefix too, as in checkpoints of the encoder alone.
            cls.renamed_keys = cls.base_class.renamed_keys

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_name, self.base_class(config))

    @property
    def base(self) -> WaveformEncoder:
        """Waveform encoder, without the head."""
        return cast(WaveformEncoder, getattr(self, self.base_name))

    def parts(self) -> dict[str, PretrainedModel]:
        """Submodels by attribute name: the encoder."""
        return {self.base_name: self.base}

    def encoder_length(self, samples: int) -> int:
        """Number of encoder tokens of a recording of `samples` samples.

        Raises:
            ValueError: too few samples for one token.
        """
        return self.base.length(samples)

    def freeze_feature_encoder(self) -> None:
        """Freeze the weights of the convolutional feature encoder."""
        self.base.freeze_feature_encoder()

    def freeze_base_model(self) -> None:
        """Freeze the encoder's weights, so that training changes the head only."""
        self.base.requires_grad_(False)
