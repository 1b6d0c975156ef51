"""Audio classifiers: a waveform encoder, mean pooling of its output and a classification head."""

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.pooling.mean_pool import mean_pool
from ...kernels.runtime.packing import cumulative
from ...scheduler.model_protocol import Task
from ..core.classification import classification_loss
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layers import apply_linear
from ..core.outputs import SequenceClassifierOutput
from .encoder import SAMPLES_MASK
from .headed_encoder import HeadedEncoder
from .model import Wav2Vec2Model


class AudioClassifier(HeadedEncoder):
    """Waveform encoder with mean pooling and a classification head; a subclass sets its `base_class`.

    With the configuration's `use_weighted_layer_sum` the head reads a learned weighted sum of all hidden
    states, else the last layer's output. Without a `problem_type`, a single label means regression;
    transformers' audio classifiers, which have no regression, then compute a loss that is always 0.

    Args:
        config: configuration of the family, with its labels; weights are randomly initialized.

    Raises:
        ValueError: the configuration has an adapter, or no labels.
    """

    task = Task.AUDIO_CLASSIFICATION
    # Checkpoints of a pretrained encoder have no head; it is then randomly initialized.
    fresh_keys = (r"^(projector|classifier)\.", r"^layer_weights$")
    config: Any

    forward = declare_forward(
        "Logits of a padded batch, each row's what they would be alone, and with labels the loss.",
        f"input_values attention_mask {OUTPUT_FLAGS} labels",
        {
            **SAMPLES_MASK,
            "attention_mask": "[batch, samples], 1 for real samples, padded on either side; all of them by "
            "default. Hidden states and attention weights are padded on the right.",
            "labels": "as `classification_loss` takes them: int64 [batch] for classes.",
        },
    )

    def __init__(self, config: Any) -> None:
        if getattr(config, "add_adapter", False):
            raise ValueError(
                f"a {type(self).__name__} has no adapter, as in transformers; set add_adapter=False"
            )
        if config.num_labels < 1:
            raise ValueError(f"a {type(self).__name__} gives labels; set num_labels, it is 0")
        super().__init__(config)
        self.layer_weights: nn.Parameter | None = None
        if config.use_weighted_layer_sum:
            states = config.num_hidden_layers + 1
            self.layer_weights = nn.Parameter(torch.ones(states) / states)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        for module in (self.projector, self.classifier):
            nn.init.normal_(module.weight, std=config.initializer_range)
            nn.init.zeros_(module.bias)

    def forward_named(
        self,
        *,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **flags: Any,
    ) -> SequenceClassifierOutput:
        """Implement `forward`, with keyword arguments only."""
        if attention_mask is not None:
            input_values, attention_mask = _left_aligned(input_values, attention_mask)
        encoded, states, attentions = self.base.encode_padded(
            input_values, attention_mask, layer_weights=self._mixture_weights(), **flags
        )
        logits = self._logits(*encoded.output())
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return SequenceClassifierOutput(loss, logits, states, attentions)

    def predict(self, features: Tensor, cu_samples: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Classification logits of packed waveforms [samples, 1]; implements `EncoderOnlyModel.predict`.

        Returns:
            `logits`, float32 [recordings, labels], with their cu_seqlens (one row per recording).
        """
        weights = self._mixture_weights()
        logits = self._logits(*self.base.forward_packed(features, cu_samples, layer_weights=weights))
        return {"logits": (logits.float(), cumulative([1] * logits.shape[0], logits.device))}

    def _mixture_weights(self) -> Tensor | None:
        """Softmax weights of the weighted layer sum; None where the head reads the last layer's output."""
        return None if self.layer_weights is None else self.layer_weights.softmax(0)

    def _logits(self, hidden: Tensor, cu_tokens: Tensor) -> Tensor:
        # transformers projects, then averages; averaging first is equal, and projects one row per recording.
        pooled = mean_pool(hidden, cu_tokens)
        pooled = apply_linear(self.projector, pooled)
        return apply_linear(self.classifier, pooled)


def _left_aligned(input_values: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate each row of inputs and mask so that its real samples come first, as the encoder requires."""
    if input_values.shape != attention_mask.shape or input_values.dim() != 2:
        return input_values, attention_mask  # the encoder raises an error for these
    mask = attention_mask.to(input_values.device).bool()
    first = mask.int().argmax(1)
    if not first.any():
        return input_values, mask
    width = mask.shape[1]
    order = (torch.arange(width, device=mask.device)[None] + first[:, None]) % width
    return input_values.gather(1, order), mask.gather(1, order)


class Wav2Vec2ForSequenceClassification(AudioClassifier):
    """wav2vec 2.0 with mean pooling and a classification head."""

    base_class = Wav2Vec2Model
