"""A waveform encoder with a head on top: what CTC and classification share."""

from typing import Any, ClassVar, cast

from ..core.model import PretrainedModel
from .encoder import WaveformEncoder


class HeadedEncoder(PretrainedModel):
    """A waveform encoder and something on top of it; a family gives its `base_class`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    base_class: ClassVar[type[WaveformEncoder]]
    base_name: ClassVar[str]  # the attribute that it is, and its name in checkpoints

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "base_class"):  # a kind of head has none yet
            cls.config_class = cls.base_class.config_class
            cls.base_prefix = cls.base_class.base_prefix
            cls.base_name = str(cls.base_prefix).removesuffix(".")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_name, self.base_class(config))

    @property
    def base(self) -> WaveformEncoder:
        """The model without its head."""
        return cast(WaveformEncoder, getattr(self, self.base_name))

    def encoder_length(self, samples: int) -> int:
        """Tokens for so many samples.

        Raises:
            ValueError: too few for one.
        """
        return self.base.length(samples)

    # For training.

    def freeze_feature_encoder(self) -> None:
        """Let training leave the convolutions on the waveform as they are."""
        self.base.freeze_feature_encoder()

    def freeze_base_model(self) -> None:
        """Let training change the head alone."""
        self.base.requires_grad_(False)

    # The encoder's tensors are the encoder's affair.

    def own_key(self, name: str) -> str:
        """See `PretrainedModel`."""
        return self.base.own_key(name)

    def ignores(self, name: str) -> bool:
        """See `PretrainedModel`."""
        return self.base.ignores(name.removeprefix(f"{self.base_name}."))

    def may_be_fresh(self, name: str) -> str:
        """See `PretrainedModel`."""
        return super().may_be_fresh(name) or self.base.may_be_fresh(name.removeprefix(f"{self.base_name}."))
