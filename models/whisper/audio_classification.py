"""Audio classifier: Whisper's encoder, mean pooling of its output and a classification head."""

from typing import Any

import torch
from torch import Tensor, nn

from ...kernels.pooling.mean_pool import mean_pool
from ...kernels.runtime.packing import cumulative
from ...scheduler.model_protocol import Task
from ..core.classification import classification_loss, labels_of
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layer_mixture import LayerMixture
from ..core.layers import apply_linear
from ..core.model import PretrainedModel
from ..core.outputs import SequenceClassifierOutput, as_encoder_output
from .config import WhisperConfig
from .encoder import FEATURES, WhisperEncoder


class WhisperForAudioClassification(PretrainedModel):
    """Whisper's encoder with mean pooling and a classification head.

    With the configuration's `use_weighted_layer_sum` the head reads a learned weighted sum of all hidden
    states, the last normalized, else the last layer's output.

    Args:
        config: configuration with its labels; weights are randomly initialized.

    Raises:
        ValueError: a configuration without labels.
    """

    config_class = WhisperConfig
    task = Task.AUDIO_CLASSIFICATION
    ignored_keys = (r"^decoder\.", r"^proj_out\.")
    # Checkpoints of speech recognition have no head; it is then randomly initialized.
    fresh_keys = (r"^(projector|classifier)\.", r"^layer_weights$")
    main_input_name = "input_features"
    config: Any

    forward = declare_forward(
        "Logits of a batch, each row's what they would be alone, and with labels the loss.",
        f"input_features encoder_outputs labels {OUTPUT_FLAGS}",
        {
            "input_features": FEATURES["input_features"],
            "encoder_outputs": "output of an earlier call of the encoder, which does not run then; for a "
            "weighted sum it has the hidden states.",
            "labels": "as `classification_loss` takes them: int64 [batch] for classes.",
        },
    )

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        labels = labels_of(config)
        self.encoder = WhisperEncoder(config)
        self.layer_weights: nn.Parameter | None = None
        if config.use_weighted_layer_sum:
            states = config.encoder_layers + 1
            self.layer_weights = nn.Parameter(torch.ones(states) / states)
        self.projector = nn.Linear(config.d_model, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, labels)
        self.initialize()

    def forward_named(
        self,
        *,
        input_features: Tensor | None = None,
        encoder_outputs: Any = None,
        labels: Tensor | None = None,
        **flags: Any,
    ) -> SequenceClassifierOutput:
        """Implement `forward`, with keyword arguments only."""
        weights = self._mixture_weights()
        if encoder_outputs is not None:
            encoded: Any = as_encoder_output(encoder_outputs)
            hidden = encoded.last_hidden_state if weights is None else _mixed(encoded, weights)
        elif input_features is not None:
            encoded = self.encoder.forward_named(
                input_features=input_features, layer_weights=weights, **flags
            )
            hidden = encoded.last_hidden_state
        else:
            raise ValueError(f"input_features are missing; give {self.encoder.input_shape}")
        batch, tokens = hidden.shape[:2]
        logits = self._logits(hidden.flatten(0, 1), cumulative([tokens] * batch, hidden.device))
        loss = None if labels is None else classification_loss(logits, labels, self.config)
        return SequenceClassifierOutput(loss, logits, encoded.hidden_states, encoded.attentions)

    def predict(self, features: Tensor, cu_frames: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Classification logits of packed features [frames, mels]; implements `EncoderOnlyModel.predict`.

        Returns:
            `logits`, float32 [recordings, labels], with their cu_seqlens (one row per recording).
        """
        weights = self._mixture_weights()
        logits = self._logits(*self.encoder.forward_packed(features, cu_frames, layer_weights=weights))
        return {"logits": (logits.float(), cumulative([1] * logits.shape[0], logits.device))}

    def encoder_length(self, frames: int) -> int:
        """Number of encoder tokens for `frames` frames, always `max_source_positions`.

        Raises:
            ValueError: another number of frames than the model reads.
        """
        return self.encoder.length(frames)

    def freeze_encoder(self) -> None:
        """Freeze the encoder's weights, so that training changes the head only."""
        self.encoder.requires_grad_(False)

    def _mixture_weights(self) -> Tensor | None:
        """Softmax weights of the weighted layer sum; None where the head reads the last layer's output."""
        return None if self.layer_weights is None else self.layer_weights.softmax(0)

    def _logits(self, hidden: Tensor, cu_tokens: Tensor) -> Tensor:
        # transformers projects, then averages; averaging first is equal, and projects one row per recording.
        pooled = apply_linear(self.projector, mean_pool(hidden, cu_tokens))
        return apply_linear(self.classifier, pooled)


def _mixed(encoded: Any, weights: Tensor) -> Tensor:
    """Weighted sum of an encoder output's hidden states, [batch, tokens, d_model].

    Raises:
        ValueError: another number of hidden states than weights.
    """
    states = encoded.hidden_states or ()
    if len(states) != len(weights):
        raise ValueError(
            f"encoder_outputs have {len(states)} hidden states, and the weighted sum reads {len(weights)}; "
            "call the encoder with output_hidden_states=True"
        )
    mixture = LayerMixture(weights)
    for state in states:
        mixture.append(state)
    return mixture.total()
