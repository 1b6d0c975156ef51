"""Configuration of HuBERT models (arXiv 2106.07447)."""

from ..wav2vec2.config import SpeechEncoderConfig


class HubertConfig(SpeechEncoderConfig):
    """Configuration of a HuBERT model; the defaults are those of facebook/hubert-base-ls960."""

    model_type = "hubert"

    do_stable_layer_norm: bool = False  # normalize before attention and feed-forward, not after
    feat_proj_layer_norm: bool = True  # normalize frames before they are projected
    conv_pos_batch_norm: bool = False  # batch norm before the positional convolution, in place of weight norm
