"""CTC models (Graves et al., 2006): a waveform encoder with a CTC head, decoded greedily (best path)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.sampling.draw import greedy
from ...scheduler.model_protocol import Task
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import apply_linear
from ..core.outputs import CausalLMOutput
from .encoder import SAMPLES_MASK
from .headed_encoder import HeadedEncoder
from .model import Wav2Vec2Model


class CTCModel(HeadedEncoder):
    """Waveform encoder with a CTC head; a subclass sets its `base_class`.

    Args:
        config: configuration of the family; weights are randomly initialized.

    Raises:
        ValueError: the configuration has no vocab_size.
    """

    task = Task.CTC
    # Checkpoints of self-supervised pretraining have no head.
    fresh_keys = (r"^lm_head\.",)

    forward = declare_forward(
        "Logits of a padded batch, each row's what they would be alone, and with labels the loss.",
        f"input_values attention_mask {OUTPUT_FLAGS} labels",
        {
            **SAMPLES_MASK,
            "labels": "int64 [batch, target]; negative numbers and the blank, `pad_token_id`, are left out.",
        },
    )

    def __init__(self, config: Any) -> None:
        if config.vocab_size is None:
            raise ValueError(
                f"a {type(self).__name__} tells tokens apart; set vocab_size in its configuration, it is None"
            )
        super().__init__(config)
        self.dropout = nn.Dropout(config.final_dropout)
        adapted = getattr(config, "add_adapter", False)
        width = config.output_hidden_size if adapted else config.hidden_size
        self.lm_head = nn.Linear(width, config.vocab_size)
        nn.init.normal_(self.lm_head.weight, std=config.initializer_range)
        nn.init.zeros_(self.lm_head.bias)

    def forward_named(
        self, *, input_values: Tensor, labels: Tensor | None = None, **inputs: Any
    ) -> CausalLMOutput:
        """Implement `forward`, with keyword arguments only."""
        inner = self.base.forward_named(input_values=input_values, **inputs)
        hidden = self.dropout(inner["last_hidden_state"])
        logits = self._logits(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        loss = None
        if labels is not None:
            rows, width = input_values.shape
            mask = inputs.get("attention_mask")
            samples = [width] * rows if mask is None else mask.sum(1).tolist()
            loss = ctc_loss(logits, labels, [self.base.length(count) for count in samples], self.config)
        return CausalLMOutput.from_base(inner, loss=loss, logits=logits)

    @property
    def samples_per_token(self) -> int:
        """Samples per output token: the product of all strides of convolutions and adapter."""
        config = self.config
        if not getattr(config, "add_adapter", False):
            return int(config.inputs_to_logits_ratio)
        return int(config.inputs_to_logits_ratio * config.adapter_stride**config.num_adapter_layers)

    @property
    def receptive_field(self) -> int:
        """Samples that the convolutions read for a frame."""
        samples = 1
        for width, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride), strict=True
        ):
            samples = (samples - 1) * stride + width
        return samples

    @property
    def window_step(self) -> int:
        """Samples of which the start of a window is a multiple, for tokens at places of the whole."""
        return self.samples_per_token * int(self.base.encoder.frames_per_token)

    def predict(self, features: Tensor, cu_samples: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Most probable token of each frame of packed waveforms [samples, 1], repeats and blanks included.

        Returns:
            `token_ids`, int64 [tokens], and `log_probabilities`, float32 [tokens], of these tokens; each with
            its cu_seqlens, as in `EncoderOnlyModel.predict`.
        """
        hidden, cu_tokens = self.base.forward_packed(features, cu_samples)
        token_ids, log_probabilities = greedy(self._logits(hidden))
        return {"token_ids": (token_ids, cu_tokens), "log_probabilities": (log_probabilities, cu_tokens)}

    def _logits(self, hidden: Tensor) -> Tensor:
        return apply_linear(self.lm_head, hidden)


def ctc_loss(logits: Tensor, labels: Tensor, lengths: list[int], config: Any) -> Tensor:
    """CTC loss of logits [batch, tokens, vocabulary], reduced by `config.ctc_loss_reduction`.

    Args:
        logits: logits of a padded batch.
        labels: int [batch, target]; negative values and the blank are ignored.
        lengths: number of tokens of each row, without padding.
        config: configuration with `pad_token_id` (the blank), `ctc_loss_reduction` and `ctc_zero_infinity`.

    Raises:
        ValueError: labels have another shape, or ids beyond the vocabulary.
    """
    labels = labels.to(logits.device)
    if labels.dim() != 2 or labels.shape[0] != logits.shape[0]:
        raise ValueError(f"labels must be [{logits.shape[0]}, target], got {list(labels.shape)}")
    if labels.numel() and int(labels.max()) >= logits.shape[2]:
        raise ValueError(
            f"labels go to {int(labels.max())}, and the model tells tokens 0 to {logits.shape[2] - 1} apart; "
            "-100 marks what is to be left out"
        )
    real = (labels >= 0) & (labels != config.pad_token_id)
    log_probabilities = F.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)
    with torch.backends.cudnn.flags(enabled=False):  # it takes other dtypes, ignores zero_infinity
        return F.ctc_loss(
            log_probabilities,
            labels[real],
            torch.tensor(lengths, device=logits.device),
            real.sum(1),
            blank=config.pad_token_id,
            reduction=config.ctc_loss_reduction,
            zero_infinity=config.ctc_zero_infinity,
        )


class Wav2Vec2ForCTC(CTCModel):
    """wav2vec 2.0 with a CTC head, for transcription."""

    base_class = Wav2Vec2Model
