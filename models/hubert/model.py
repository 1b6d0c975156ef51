"""HuBERT (arXiv 2106.07447): wav2vec 2.0's architecture, with two options of its own."""

from typing import Any, ClassVar

from torch import Tensor

from ..core.config import PretrainedConfig
from ..core.outputs import BaseModelOutput, ModelOutput
from ..wav2vec2.config import SpeechEncoderConfig
from ..wav2vec2.model import Wav2Vec2Encoder


class HubertConfig(SpeechEncoderConfig):
    """Sizes and constants of a HuBERT model; the defaults are facebook/hubert-base-ls960's.

    Args:
        do_stable_layer_norm: normalize before attention and feed-forward, not after.
        feat_proj_layer_norm: whether frames are normalized before they are projected.
        conv_pos_batch_norm: batch normalization before the positional convolution, not weight norm in it.
        **kwargs: see `SpeechEncoderConfig`.
    """

    model_type: ClassVar[str] = "hubert"

    def __init__(
        self,
        *,
        do_stable_layer_norm: bool = False,
        feat_proj_layer_norm: bool = True,
        conv_pos_batch_norm: bool = False,
        **kwargs: Any,
    ) -> None:
        self.do_stable_layer_norm = do_stable_layer_norm
        self.feat_proj_layer_norm = feat_proj_layer_norm
        self.conv_pos_batch_norm = conv_pos_batch_norm
        super().__init__(**kwargs)


class HubertModel(Wav2Vec2Encoder):
    """Convolutions on the waveform and a transformer."""

    config_class: ClassVar[type[PretrainedConfig]] = HubertConfig
    base_prefix: ClassVar[str] = "hubert."

    def __init__(self, config: HubertConfig) -> None:
        super().__init__(
            config, normalized=config.feat_proj_layer_norm, batch_norm=config.conv_pos_batch_norm
        )
        self.initialize()

    def output(
        self,
        last: Tensor,
        extracted: Tensor,
        states: tuple[Tensor, ...] | None,
        attentions: tuple[Tensor, ...] | None,
    ) -> ModelOutput:
        """See `WaveformEncoder`."""
        return BaseModelOutput(last, states, attentions)
