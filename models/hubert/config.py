"""HuBERT's configuration."""

from typing import Any, ClassVar

from ..wav2vec2.config import SpeechEncoderConfig


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
