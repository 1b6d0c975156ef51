"""HuBERT's configuration."""

from ..wav2vec2.config import SpeechEncoderConfig


class HubertConfig(SpeechEncoderConfig):
    """Sizes and constants of a HuBERT model; the defaults are facebook/hubert-base-ls960's."""

    model_type = "hubert"

    do_stable_layer_norm: bool = False  # normalize before attention and feed-forward, not after
    feat_proj_layer_norm: bool = True  # normalize frames before they are projected
    conv_pos_batch_norm: bool = False  # batch norm before the positional convolution, in place of weight norm
