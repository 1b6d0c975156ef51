"""Waveform encoder on padded or packed batches: base class of wav2vec 2.0 and related models."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...kernels.runtime.packing import pack, spans, unpack
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.layer_mixture import LayerMixture
from ..core.outputs import BaseModelOutput, ModelOutput
from ..core.padding import mask_of, pack_waveforms, pad_weights, unpack_all
from ..core.span_masks import draw_spans
from ..core.speech_encoder import SpeechEncoder
from .config import SpeechEncoderConfig
from .layers import Adapter, FeatureEncoder
from .positions import WeightNormConvolution

SAMPLES_MASK = {
    "attention_mask": "[batch, samples], 1 for real samples, which come first; all of them by default.",
    "output_hidden_states": "also return the first layer's input and each layer's output, layers + 1 tensors "
    "[batch, tokens, hidden_size], before any last normalization.",
}


@dataclass
class Wav2Vec2BaseModelOutput(ModelOutput):
    """Output of wav2vec 2.0's encoder; zero where the input was padding.

    Args:
        last_hidden_state: [batch, tokens, hidden_size], or output_hidden_size with an adapter.
        extract_features: [batch, frames, conv_dim[-1]], normalized output of the convolutions.
    """

    last_hidden_state: Tensor
    extract_features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class Encoded:
    """Packed output of the encoder for a batch, with intermediate results."""

    hidden: Tensor  # [tokens, width]
    cu_tokens: Tensor  # int32 [n + 1], like every cu_* here
    extracted: Tensor  # [frames, conv_dim[-1]]
    cu_frames: Tensor
    weights: list[list[Tensor]] | None  # attention weights, see `StackAttention`
    cu_states: Tensor  # cu_seqlens of attention weights, hidden states and `mixed`
    adapted: int = 0  # number of adapter layers that ran
    mixed: Tensor | None = None  # weighted sum of hidden states, [tokens, hidden_size]

    def output(self) -> tuple[Tensor, Tensor]:
        """Weighted sum of hidden states if there is one, else the last ones; with their cu_seqlens."""
        return (self.hidden, self.cu_tokens) if self.mixed is None else (self.mixed, self.cu_states)


class WaveformEncoder(SpeechEncoder):
    """Base waveform encoder: convolutions, projection, SpecAugment in training, transformer, adapter.

    A subclass defines `project` and sets `encoder` to a module with the call signature of `layers.Encoder`.
    """

    # Used in training only; fine-tuned checkpoints may lack it, such as facebook/wav2vec2-base-960h.
    training_keys = ("masked_spec_embed",)
    # Parameter names of torch's weight norm before it became a parametrization (torch 2.0).
    renamed_keys = (
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    )
    input_shape = "waveforms [batch, samples]"
    # The inner activations of a feed-forward network, 3,072 values per token, then take 6 MB.
    max_chunk_tokens = 512
    output_class: ClassVar[type[ModelOutput]] = BaseModelOutput
    config: Any
    encoder: Any

    forward = declare_forward(
        "Encode a padded batch; each row's result is what it would be alone.",
        f"input_values attention_mask mask_time_indices {OUTPUT_FLAGS}",
        SAMPLES_MASK,
    )

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__(config)
        self.feature_extractor = FeatureEncoder(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0 or config.mask_feature_prob > 0:
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())
        self.adapter: Adapter | None = None

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Project frames [frames, conv_dim[-1]] to [frames, hidden_size]; return normalized frames too."""
        raise NotImplementedError

    def initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    bound = (module.groups / (module.in_channels * module.kernel_size[0])) ** 0.5
                    nn.init.uniform_(module.bias, -bound, bound)
            elif isinstance(module, WeightNormConvolution):
                module.initialize()

    def freeze_feature_encoder(self) -> None:
        """Freeze the weights of the convolutional feature encoder."""
        self.feature_extractor.requires_grad_(False)

    def forward_named(
        self, *, input_values: Tensor, attention_mask: Tensor | None = None, **inputs: Any
    ) -> ModelOutput:
        """Implement `forward`, with keyword arguments only."""
        encoded, states, attentions = self.encode_padded(input_values, attention_mask, **inputs)
        frames = self._frames(input_values.shape[1])
        whole = Wav2Vec2BaseModelOutput(
            unpack(encoded.hidden, _mask(encoded.cu_tokens, self._adapted(frames, encoded.adapted))),
            unpack(encoded.extracted, _mask(encoded.cu_frames, frames)),
            states,
            attentions,
        )
        return self.output_class.from_base(whole)

    def encode_padded(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        *,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        layer_weights: Tensor | None = None,
    ) -> tuple[Encoded, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """Encode a padded batch to packed results, with padded hidden states and attention weights if asked.

        Args:
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states: those of
                `forward`.
            layer_weights: [layers + 1], weights for a weighted sum of the hidden states; None for no sum.
        """
        if not input_values.is_floating_point():
            raise ValueError(f"input_values must be floats [batch, samples], got {input_values.dtype}")
        samples, cu_samples = pack_waveforms(input_values, attention_mask)
        lengths = _lengths(cu_samples)
        if attention_mask is not None:
            first = mask_of(lengths, attention_mask.shape[1], attention_mask.device)
            if not torch.equal(attention_mask.bool(), first):
                raise ValueError(
                    "attention_mask must begin with the real samples of each row; pad on the right"
                )
        frames = self._frames(input_values.shape[1])
        frame_mask = mask_of([self._frames(length) for length in lengths], frames, samples.device)
        masked = None
        if mask_time_indices is not None:
            if mask_time_indices.shape != frame_mask.shape:
                raise ValueError(
                    f"mask_time_indices must be {list(frame_mask.shape)}, got {list(mask_time_indices.shape)}"
                )
            masked = pack(mask_time_indices.to(samples.device).bool(), frame_mask)
        states: list[Tensor] | None = [] if output_hidden_states else None
        encoded = self._run(samples, cu_samples, masked, states, output_attentions, layer_weights)
        state_mask = _mask(encoded.cu_states, frames // self.encoder.frames_per_token)
        attentions = pad_weights(encoded.weights, state_mask, state_mask)
        return encoded, unpack_all(states, state_mask), attentions

    @property
    def inputs_per_token(self) -> int:
        """Samples per frame, before any adapter."""
        return int(self.config.inputs_to_logits_ratio)

    def length(self, inputs: int) -> int:
        """Number of output tokens of a recording of `inputs` samples.

        Raises:
            ValueError: too few samples for one token; the message gives both numbers.
        """
        return self._adapted(self._frames(inputs))

    def run_packed(
        self, inputs: Tensor, cu_inputs: Tensor, layer_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode packed waveforms in one pass, without splitting them into chunks.

        Args:
            inputs, cu_inputs: packed waveforms and their cu_seqlens, as for `forward_packed`.
            layer_weights: [layers + 1]; if given, return the hidden states' weighted sum, not the last ones.
        """
        for samples in _lengths(cu_inputs):
            self._frames(samples)
        return self._run(inputs, cu_inputs, layer_weights=layer_weights).output()

    def _frames(self, samples: int) -> int:
        frames, least = self.feature_extractor.length(samples), self.encoder.frames_per_token
        if frames < least:
            raise ValueError(
                f"a recording of {samples} samples is too short: this model needs "
                f"{self.feature_extractor.needed(least)} at least; leave it out, or add silence"
            )
        return frames

    def _adapted(self, frames: int, layers: int | None = None) -> int:
        """Number of tokens that `frames` become after `layers` adapter layers, by default all of them."""
        return frames if self.adapter is None else self.adapter.length(frames, layers)

    def _run(
        self,
        samples: Tensor,
        cu_samples: Tensor,
        masked: Tensor | None = None,
        states: list[Tensor] | None = None,
        record: bool = False,
        layer_weights: Tensor | None = None,
    ) -> Encoded:
        if samples.dim() != 2 or samples.shape[1] != 1:
            raise ValueError(f"packed waveforms must be [samples, 1], got {list(samples.shape)}")
        frames, cu_frames = self.feature_extractor(samples.to(self.dtype), cu_samples)
        hidden, extracted = self.project(frames)
        hidden = self._augmented(hidden, _lengths(cu_frames), masked)
        mixture = None if layer_weights is None else LayerMixture(layer_weights, states)
        hidden, cu_states, weights = self.encoder(
            hidden, cu_frames, states if mixture is None else mixture, record
        )
        cu_tokens, adapted = cu_frames, 0
        if self.adapter is not None:
            hidden, cu_tokens, adapted = self.adapter(hidden, cu_frames)
        mixed = None if mixture is None else mixture.total()
        return Encoded(hidden, cu_tokens, extracted, cu_frames, weights, cu_states, adapted, mixed)

    def _augmented(self, hidden: Tensor, lengths: list[int], masked: Tensor | None) -> Tensor:
        """Apply SpecAugment to packed frames [frames, hidden_size].

        Frames in `masked`, or in random spans in training, become the learned mask vector; in training random
        spans of channels are zeroed too.
        """
        config = self.config
        if not config.apply_spec_augment:
            return hidden
        if masked is None and self.training and config.mask_time_prob > 0:
            masked = draw_spans(
                lengths, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            )
        if masked is not None:
            if self.masked_spec_embed is None:
                raise ValueError(
                    "mask_time_indices needs the vector masked_spec_embed, and this model has none; set "
                    "mask_time_prob or mask_feature_prob above 0 in its configuration"
                )
            vector = self.masked_spec_embed.to(hidden.dtype)
            hidden = torch.where(masked.to(hidden.device)[:, None], vector, hidden)
        if self.training and config.mask_feature_prob > 0:
            drawn = draw_spans(
                [config.hidden_size] * len(lengths),
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
            )
            channels = drawn.view(len(lengths), config.hidden_size).to(hidden.device)
            rows = torch.repeat_interleave(channels, torch.tensor(lengths, device=hidden.device), 0)
            hidden = hidden.masked_fill(rows, 0.0)
        return hidden


def _lengths(cu_seqlens: Tensor) -> list[int]:
    return [end - start for start, end in spans(cu_seqlens)]


def _mask(cu_tokens: Tensor, width: int) -> Tensor:
    return mask_of(_lengths(cu_tokens), width, cu_tokens.device)
