"""UniSpeech-SAT's configuration."""

from typing import Any, ClassVar

from ..wav2vec2.config import SpeechEncoderConfig


class UniSpeechSatConfig(SpeechEncoderConfig):
    """Sizes and constants of a UniSpeech-SAT model; the defaults are microsoft/unispeech-sat-base's.

    Args:
        do_stable_layer_norm: normalize before attention and feed-forward, not after.
        feat_quantizer_dropout, num_codevectors_per_group, num_codevector_groups, codevector_dim,
            proj_codevector_dim, contrastive_logits_temperature, num_negatives, diversity_loss_weight,
            num_clusters: of pretraining.
        tdnn_dim, tdnn_kernel, tdnn_dilation, xvector_output_dim: of a speaker embedding head.
        **kwargs: see `SpeechEncoderConfig`.
    """

    model_type: ClassVar[str] = "unispeech-sat"

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
        ctc_loss_reduction: str = "mean",
        tdnn_dim: tuple[int, ...] | list[int] = (512, 512, 512, 512, 1500),
        tdnn_kernel: tuple[int, ...] | list[int] = (5, 3, 3, 1, 1),
        tdnn_dilation: tuple[int, ...] | list[int] = (1, 2, 3, 1, 1),
        xvector_output_dim: int = 512,
        num_clusters: int = 504,
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
        self.num_clusters = num_clusters
        super().__init__(ctc_loss_reduction=ctc_loss_reduction, **kwargs)
