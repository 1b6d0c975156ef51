"""The configurations of wav2vec 2.0 and of what its relatives share with it."""

import math
from typing import Any, ClassVar

from ..core.config import PretrainedConfig

NORMS = ("group", "layer")


class SpeechEncoderConfig(PretrainedConfig):
    """Sizes and constants that all encoders of this kind have; a family adds its own and other defaults.

    Args:
        vocab_size: tokens of a CTC head; the encoder has none.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: of the transformer.
        hidden_act: activation of its feed-forward half, one of `kernels.activation.ACTIVATIONS`.
        hidden_dropout, activation_dropout, attention_dropout, feat_proj_dropout: in training.
        final_dropout: before a CTC head, in training.
        layerdrop: chance of skipping a layer in training.
        initializer_range: standard deviation of fresh weights.
        layer_norm_eps: of the transformer and the feature projection.
        feat_extract_norm: "group" normalizes the first convolution's channels over an utterance, "layer" each
            position after every convolution.
        feat_extract_activation: of the convolutions.
        conv_dim, conv_stride, conv_kernel: channels, stride and kernel size of each convolution.
        conv_bias: whether the convolutions have one.
        num_conv_pos_embeddings, num_conv_pos_embedding_groups: kernel size and groups of the convolution
            that tells positions.
        apply_spec_augment: whether anything is masked at all (SpecAugment, arXiv 1904.08779).
        mask_time_prob: share of the positions that spans would mask in training, did they not overlap.
        mask_time_length: positions of a span.
        mask_time_min_masks: spans at least.
        mask_feature_prob, mask_feature_length, mask_feature_min_masks: the same over channels.
        ctc_loss_reduction, ctc_zero_infinity: of a CTC head.
        use_weighted_layer_sum, classifier_proj_size: of a classification head.

    Raises:
        ValueError: convolutions whose lists differ in length or hold sizes below 1, heads or groups that do
            not divide hidden_size, or an unknown feat_extract_norm.
    """

    def __init__(
        self,
        *,
        vocab_size: int | None = 32,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout: float = 0.1,
        activation_dropout: float = 0.1,
        attention_dropout: float = 0.1,
        feat_proj_dropout: float = 0.0,
        final_dropout: float = 0.1,
        layerdrop: float = 0.1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-5,
        feat_extract_norm: str = "group",
        feat_extract_activation: str = "gelu",
        conv_dim: tuple[int, ...] | list[int] = (512, 512, 512, 512, 512, 512, 512),
        conv_stride: tuple[int, ...] | list[int] = (5, 2, 2, 2, 2, 2, 2),
        conv_kernel: tuple[int, ...] | list[int] = (10, 3, 3, 3, 3, 2, 2),
        conv_bias: bool = False,
        num_conv_pos_embeddings: int = 128,
        num_conv_pos_embedding_groups: int = 16,
        apply_spec_augment: bool = True,
        mask_time_prob: float = 0.05,
        mask_time_length: int = 10,
        mask_time_min_masks: int = 2,
        mask_feature_prob: float = 0.0,
        mask_feature_length: int = 10,
        mask_feature_min_masks: int = 0,
        ctc_loss_reduction: str = "sum",
        ctc_zero_infinity: bool = False,
        use_weighted_layer_sum: bool = False,
        classifier_proj_size: int = 256,
        pad_token_id: int | None = 0,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout = hidden_dropout
        self.activation_dropout = activation_dropout
        self.attention_dropout = attention_dropout
        self.feat_proj_dropout = feat_proj_dropout
        self.final_dropout = final_dropout
        self.layerdrop = layerdrop
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.feat_extract_norm = feat_extract_norm
        self.feat_extract_activation = feat_extract_activation
        self.conv_dim = list(conv_dim)
        self.conv_stride = list(conv_stride)
        self.conv_kernel = list(conv_kernel)
        self.conv_bias = conv_bias
        self.num_conv_pos_embeddings = num_conv_pos_embeddings
        self.num_conv_pos_embedding_groups = num_conv_pos_embedding_groups
        self.apply_spec_augment = apply_spec_augment
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_time_min_masks = mask_time_min_masks
        self.mask_feature_prob = mask_feature_prob
        self.mask_feature_length = mask_feature_length
        self.mask_feature_min_masks = mask_feature_min_masks
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.classifier_proj_size = classifier_proj_size
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        kwargs.pop("num_feat_extract_layers", None)
        super().__init__(**kwargs)
        self.num_feat_extract_layers = len(self.conv_dim)
        self._check()

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame of the convolutions to the next."""
        return math.prod(self.conv_stride)

    def _check(self) -> None:
        lists = {name: getattr(self, name) for name in ("conv_dim", "conv_stride", "conv_kernel")}
        if len({len(sizes) for sizes in lists.values()}) != 1 or not self.conv_dim:
            given = ", ".join(f"{name} {sizes}" for name, sizes in lists.items())
            raise ValueError(f"{given}: each must have one number for each convolution")
        for name, sizes in lists.items():
            if min(sizes) < 1:
                raise ValueError(f"{name} {sizes} must have numbers of at least 1")
        if self.feat_extract_norm not in NORMS:
            raise ValueError(
                f"feat_extract_norm {self.feat_extract_norm!r} is not known; "
                f"use {' or '.join(map(repr, NORMS))}"
            )
        for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if getattr(self, name) < 1 or self.hidden_size % getattr(self, name):
                raise ValueError(f"{name} {getattr(self, name)} must divide hidden_size {self.hidden_size}")


class Wav2Vec2Config(SpeechEncoderConfig):
    """Sizes and constants of a wav2vec 2.0 model; the defaults are facebook/wav2vec2-base-960h's.

    Args:
        do_stable_layer_norm: normalize before attention and feed-forward, not after.
        feat_quantizer_dropout, num_codevectors_per_group, num_codevector_groups, codevector_dim,
            proj_codevector_dim, contrastive_logits_temperature, num_negatives, diversity_loss_weight: of
            pretraining.
        tdnn_dim, tdnn_kernel, tdnn_dilation, xvector_output_dim: of a speaker embedding head.
        add_adapter: whether convolutions behind the encoder shorten its output.
        adapter_kernel_size, adapter_stride, num_adapter_layers: theirs.
        output_hidden_size: width behind them; hidden_size by default.
        adapter_attn_dim: adapters in the layers (facebook/mms-1b-all); not supported.
        **kwargs: see `SpeechEncoderConfig`.

    Raises:
        ValueError: see `SpeechEncoderConfig`; or an option that is not supported.
    """

    model_type: ClassVar[str] = "wav2vec2"

    def __init__(
        self,
        *,
        do_stable_layer_norm: bool = False,
        feat_quantizer_dropout: float = 0.0,
        num_codevectors_per_group: int = 320,
        num_codevector_groups: int = 2,
        contrastive_logits_temperature: float = 0.1,
        num_negatives: int = 100,
        codevector_dim: int = 256,
        proj_codevector_dim: int = 256,
        diversity_loss_weight: float = 0.1,
        tdnn_dim: tuple[int, ...] | list[int] = (512, 512, 512, 512, 1500),
        tdnn_kernel: tuple[int, ...] | list[int] = (5, 3, 3, 1, 1),
        tdnn_dilation: tuple[int, ...] | list[int] = (1, 2, 3, 1, 1),
        xvector_output_dim: int = 512,
        add_adapter: bool = False,
        adapter_kernel_size: int = 3,
        adapter_stride: int = 2,
        num_adapter_layers: int = 3,
        output_hidden_size: int | None = None,
        adapter_attn_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.do_stable_layer_norm = do_stable_layer_norm
        self.feat_quantizer_dropout = feat_quantizer_dropout
        self.num_codevectors_per_group = num_codevectors_per_group
        self.num_codevector_groups = num_codevector_groups
        self.contrastive_logits_temperature = contrastive_logits_temperature
        self.num_negatives = num_negatives
        self.codevector_dim = codevector_dim
        self.proj_codevector_dim = proj_codevector_dim
        self.diversity_loss_weight = diversity_loss_weight
        self.tdnn_dim = list(tdnn_dim)
        self.tdnn_kernel = list(tdnn_kernel)
        self.tdnn_dilation = list(tdnn_dilation)
        self.xvector_output_dim = xvector_output_dim
        self.add_adapter = add_adapter
        self.adapter_kernel_size = adapter_kernel_size
        self.adapter_stride = adapter_stride
        self.num_adapter_layers = num_adapter_layers
        self.output_hidden_size = output_hidden_size or kwargs.get("hidden_size", 768)
        self.adapter_attn_dim = adapter_attn_dim
        super().__init__(**kwargs)

    def _check(self) -> None:
        super()._check()
        if self.adapter_attn_dim is not None:
            raise ValueError(
                f"adapter_attn_dim {self.adapter_attn_dim} is not supported yet: adapters in the layers, as "
                "in facebook/mms-1b-all; use a checkpoint without them"
            )
        # transformers pads by 1 whatever the kernel; a kernel of 2 or 3 is padded by half of it.
        if self.add_adapter and self.adapter_kernel_size not in (2, 3):
            raise ValueError(f"adapter_kernel_size {self.adapter_kernel_size} is not supported; use 2 or 3")
        if self.add_adapter and (self.adapter_stride < 1 or self.num_adapter_layers < 0):
            raise ValueError(
                f"adapter_stride {self.adapter_stride} must be at least 1 and num_adapter_layers "
                f"{self.num_adapter_layers} at least 0"
            )
