"""Configuration of wav2vec 2.0, and base configurations of related waveform encoders."""

import math

from ..core.config import PretrainedConfig
from ..core.field_types import Count, Deviation, Epsilon, Layers, Probability, Size, Small, TokenId, shown
from ..core.fields import activation, divides, field, one_of


class SpeechEncoderConfig(PretrainedConfig):
    """Base configuration of waveform encoders: a convolutional feature encoder and a transformer."""

    vocab_size: Size | None = 32  # outputs of a CTC head
    hidden_size: Size = 768
    num_hidden_layers: Layers = 12
    num_attention_heads: Size = field(12, check=divides("hidden_size"))
    intermediate_size: Size = 3072  # inner width of the feed-forward network
    hidden_act: str = field("gelu", check=activation)
    hidden_dropout: Probability = 0.1
    activation_dropout: Probability = 0.1
    attention_dropout: Probability = 0.1
    feat_proj_dropout: Probability = 0.0
    final_dropout: Probability = 0.1  # before a CTC head
    layerdrop: Probability = 0.1  # chance of skipping a layer in training
    initializer_range: Deviation = 0.02  # standard deviation of randomly initialized weights
    layer_norm_eps: Epsilon = 1e-5  # of the transformer and the feature projection
    # "group": normalize each channel of the first convolution over the utterance; "layer": normalize each
    # position after every convolution.
    feat_extract_norm: str = field("group", check=one_of("group", "layer"))
    feat_extract_activation: str = field("gelu", check=activation)
    conv_dim: list[Size] = field((512, 512, 512, 512, 512, 512, 512))
    conv_stride: list[Small] = field((5, 2, 2, 2, 2, 2, 2))
    conv_kernel: list[Small] = field((10, 3, 3, 3, 3, 2, 2))
    conv_bias: bool = False
    num_conv_pos_embeddings: Size = 128  # kernel size of the convolutional positional embedding
    num_conv_pos_embedding_groups: Size = field(16, check=divides("hidden_size"))
    apply_spec_augment: bool = True  # SpecAugment (arXiv 1904.08779), in training
    mask_time_prob: Probability = 0.05  # fraction of frames in masked spans if none overlap
    mask_time_length: Count = 10  # frames per span
    mask_time_min_masks: Count = 2  # minimum number of spans
    mask_feature_prob: Probability = 0.0
    mask_feature_length: Count = 10
    mask_feature_min_masks: Count = 0
    ctc_loss_reduction: str = field("sum", check=one_of("sum", "mean", "none"))
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False  # classification heads read a learned sum of all layers
    classifier_proj_size: Size = 256
    pad_token_id: TokenId | None = 0
    bos_token_id: TokenId | None = 1
    eos_token_id: TokenId | list[TokenId] | None = 2

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples per frame: the product of the convolutions' strides."""
        return math.prod(self.conv_stride)

    def _complete(self) -> None:
        self.num_feat_extract_layers = len(self.conv_dim)
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel) > 0:
            raise ValueError(
                f"conv_dim {shown(self.conv_dim)}, conv_stride {shown(self.conv_stride)}, conv_kernel "
                f"{shown(self.conv_kernel)}: "
                "each must have one number for each convolution"
            )


class ContrastiveConfig(SpeechEncoderConfig):
    """Base configuration of encoders pretrained contrastively with a codebook, such as wav2vec 2.0."""

    do_stable_layer_norm: bool = False  # normalize before attention and feed-forward, not after
    # The remaining fields are used in pretraining only.
    feat_quantizer_dropout: Probability = 0.0
    num_codevectors_per_group: Size = 320
    num_codevector_groups: Size = 2
    contrastive_logits_temperature: float = 0.1
    num_negatives: Count = 100
    codevector_dim: Size = 256
    proj_codevector_dim: Size = 256
    diversity_loss_weight: float = 0.1


class Wav2Vec2Config(ContrastiveConfig):
    """Configuration of a wav2vec 2.0 model; the defaults are those of facebook/wav2vec2-base-960h."""

    model_type = "wav2vec2"

    # tdnn_* and xvector_output_dim configure transformers' speaker-embedding (x-vector) head.
    tdnn_dim: list[Size] = field((512, 512, 512, 512, 1500))
    tdnn_kernel: list[Small] = field((5, 3, 3, 1, 1))
    tdnn_dilation: list[Small] = field((1, 2, 3, 1, 1))
    xvector_output_dim: Size = 512
    add_adapter: bool = False  # append strided convolutions that shorten the encoder's output
    adapter_kernel_size: Small = 3
    adapter_stride: Small = 2
    num_adapter_layers: Layers = 3
    output_hidden_size: Size = field(None)  # width after the adapter; hidden_size by default
    adapter_attn_dim: Size | None = None  # width of adapters inside layers (facebook/mms-1b-all); unsupported

    def _complete(self) -> None:
        super()._complete()
        self.output_hidden_size = self.output_hidden_size or self.hidden_size
        if self.adapter_attn_dim is not None:
            raise ValueError(
                f"adapter_attn_dim {self.adapter_attn_dim} is not supported yet: adapters in the layers, as "
                "in facebook/mms-1b-all; use a checkpoint without them"
            )
        # transformers always pads by 1, our convolution by kernel // 2: the two agree for kernels of 2 and 3.
        if self.add_adapter and self.adapter_kernel_size not in (2, 3):
            raise ValueError(f"adapter_kernel_size {self.adapter_kernel_size} is not supported; use 2 or 3")
