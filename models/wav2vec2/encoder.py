"""What wav2vec 2.0 and its relatives share: from waveforms to hidden states, padded or packed."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ...kernels.runtime.packing import cumulative, pack, spans, unpack
from ..core.chunks import in_chunks
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutput, ModelOutput, as_asked
from ..core.padding import mask_of, pad_weights, unpack_all
from .config import SpeechEncoderConfig
from .layers import FeatureEncoder, LayerMixture
from .masking import drawn_spans
from .positions import WeightNormConvolution

# What a processor encodes at a time: the inner half of a layer, 3,072 numbers a token, then takes 6 MB.
_CACHED_TOKENS = 512


@dataclass
class Wav2Vec2BaseModelOutput(ModelOutput):
    """last_hidden_state [batch, tokens, hidden_size] and extract_features [batch, frames, conv_dim[-1]], what
    the convolutions gave, normalized; zero where the input was padding."""

    last_hidden_state: Tensor
    extract_features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


@dataclass
class Encoded:
    """Packed results of a batch.

    Args:
        hidden: [tokens, width], with `cu_tokens`.
        extracted: [frames, conv_dim[-1]], with `cu_frames`.
        weights: see `StackAttention`; `cu_states` is theirs and the hidden states'.
        adapted: how many layers of an adapter ran.
        mixed: the weighted sum of the hidden states, [tokens, hidden_size]; None where nobody asked for it.
    """

    hidden: Tensor
    cu_tokens: Tensor
    extracted: Tensor
    cu_frames: Tensor
    weights: list[list[Tensor]] | None
    cu_states: Tensor
    adapted: int = 0
    mixed: Tensor | None = None


class WaveformEncoder(PretrainedModel):
    """Convolutions, projection, SpecAugment in training, transformer.

    A family gives `project` and, as `encoder`, a module that is called as `wav2vec2_layers.Encoder` is.

    Args:
        config: sizes and constants; weights are fresh.
    """

    # Checkpoints that were trained on transcripts alone may lack it, facebook/wav2vec2-base-960h for one.
    training_keys: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    # The names that torch's weight norm had before it was a parametrization.
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
    )
    config: Any
    encoder: nn.Module

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__(config)
        self.feature_extractor = FeatureEncoder(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0 or config.mask_feature_prob > 0:
            self.masked_spec_embed = nn.Parameter(torch.empty(config.hidden_size).uniform_())

    def project(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames [frames, conv_dim[-1]] to [frames, hidden_size], and what was projected."""
        raise NotImplementedError(f"{type(self).__name__} must say how it projects")

    def adapt(self, hidden: Tensor, cu_tokens: Tensor) -> tuple[Tensor, Tensor, int]:
        """What follows the transformer: new tokens, their cu_seqlens, how many layers ran."""
        return hidden, cu_tokens, 0

    def adapted_length(self, frames: int, layers: int | None = None) -> int:
        """Tokens for so many frames, after so many layers of what follows the transformer; all by default."""
        return frames

    @property
    def least_frames(self) -> int:
        """Frames of the shortest recording."""
        return 1

    def initialize(self) -> None:
        """Fresh weights as transformers draws them."""
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
        """Let training leave the convolutions on the waveform as they are."""
        self.feature_extractor.requires_grad_(False)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Encode a padded batch; each row's result is what it would be alone.

        Args:
            input_values: [batch, samples], as the feature extractor makes them.
            attention_mask: [batch, samples], 1 for real samples, which come first; all of them by default.
            mask_time_indices: bool [batch, frames], where the learned vector stands instead of a frame, in
                training or not. Without effect where the configuration's apply_spec_augment is False.
            output_attentions: also return attention weights, [batch, heads, tokens, tokens] for each layer.
            output_hidden_states: also return what the first layer reads and each layer's output, layers + 1
                tensors [batch, tokens, hidden_size], before any last normalization.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: inputs that do not fit, a mask whose real samples do not come first, or a recording
                that is too short.
        """
        encoded, states, attentions = self.encode_padded(
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states
        )
        frames = self._frames(input_values.shape[1])
        tokens = self.adapted_length(frames, encoded.adapted)
        output = self.output(
            unpack(encoded.hidden, _mask(encoded.cu_tokens, tokens)),
            unpack(encoded.extracted, _mask(encoded.cu_frames, frames)),
            states,
            attentions,
        )
        return as_asked(output, return_dict, self.config)

    def encode_padded(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        layer_weights: Tensor | None = None,
    ) -> tuple[Encoded, tuple[Tensor, ...] | None, tuple[Tensor, ...] | None]:
        """What `forward` returns but packed, with hidden states and attention weights, padded, if asked for.

        Args:
            input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states: see
                `forward`, which has the errors too.
            layer_weights: [layers + 1], of the sum of hidden states; None for no sum.
        """
        config = self.config
        samples, cu_samples = pack_waveforms(input_values, attention_mask)
        lengths = [self._frames(end - start) for start, end in spans(cu_samples)]
        frames = self._frames(input_values.shape[1])
        masked = None
        if mask_time_indices is not None:
            frame_mask = mask_of(lengths, frames, samples.device)
            if mask_time_indices.shape != frame_mask.shape:
                raise ValueError(
                    f"mask_time_indices must be {list(frame_mask.shape)}, got {list(mask_time_indices.shape)}"
                )
            masked = pack(mask_time_indices.to(samples.device).bool(), frame_mask)
        record = config.output_attentions if output_attentions is None else output_attentions
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states: list[Tensor] | None = [] if keep else None
        encoded = self._run(samples, cu_samples, masked, states, bool(record), layer_weights)
        state_mask = _mask(encoded.cu_states, cast(Any, self.encoder).width(frames))
        attentions = pad_weights(encoded.weights, state_mask, state_mask)
        return encoded, unpack_all(states, state_mask), attentions

    def output(
        self,
        last: Tensor,
        extracted: Tensor,
        states: tuple[Tensor, ...] | None,
        attentions: tuple[Tensor, ...] | None,
    ) -> ModelOutput:
        """What `forward` returns, of its padded parts."""
        return BaseModelOutput(last, states, attentions)

    def packed(
        self, features: Tensor, cu_samples: Tensor, layer_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Packed waveforms [samples, 1] to packed tokens [tokens, width] and their cu_seqlens.

        Args:
            features: the waveforms, with `cu_samples`.
            layer_weights: [layers + 1], for the sum of hidden states weighted so, in place of the output.

        Raises:
            ValueError: a recording that is too short.
        """
        run = partial(self._hidden, layer_weights=layer_weights)
        if features.device.type != "cpu" or self.training:
            return run(features, cu_samples)
        return in_chunks(run, features, cu_samples, _CACHED_TOKENS * self.config.inputs_to_logits_ratio)

    def length(self, samples: int) -> int:
        """Tokens for so many samples.

        Raises:
            ValueError: too few for one, with the numbers.
        """
        return self.adapted_length(self._frames(samples))

    def token_mask(self, attention_mask: Tensor, width: int | None = None) -> Tensor:
        """Where the tokens of masked samples lie in a padded output: bool [batch, width].

        Args:
            attention_mask: [batch, samples].
            width: tokens of the padded output; those of all samples by default.

        Raises:
            ValueError: a row has more tokens than that, or a recording is too short.
        """
        lengths = [self.length(samples) for samples in attention_mask.bool().sum(1).tolist()]
        width = self.length(attention_mask.shape[1]) if width is None else width
        if max(lengths, default=0) > width:
            raise ValueError(
                f"attention_mask {list(attention_mask.shape)} stands for {max(lengths)} tokens, and the "
                f"encoder's output has {width}; give the mask that it was made with"
            )
        return mask_of(lengths, width, attention_mask.device)

    def _frames(self, samples: int) -> int:
        frames = self.feature_extractor.length(samples)
        if frames < self.least_frames:
            raise ValueError(
                f"a recording of {samples} samples is too short: this model needs "
                f"{self.feature_extractor.needed(self.least_frames)} at least; leave it out, or add silence"
            )
        return frames

    def _hidden(
        self, samples: Tensor, cu_samples: Tensor, layer_weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        for start, end in spans(cu_samples):
            self._frames(end - start)
        encoded = self._run(samples, cu_samples, layer_weights=layer_weights)
        if encoded.mixed is not None:
            return encoded.mixed, encoded.cu_states
        return encoded.hidden, encoded.cu_tokens

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
        hidden = self._augmented(hidden, cu_frames, masked)
        mixture = None if layer_weights is None else LayerMixture(layer_weights, states)
        kept = states if mixture is None else mixture
        hidden, cu_states, weights = self.encoder(hidden, cu_frames, kept, record)
        hidden, cu_tokens, adapted = self.adapt(hidden, cu_frames)
        mixed = None if mixture is None else mixture.total
        return Encoded(hidden, cu_tokens, extracted, cu_frames, weights, cu_states, adapted, mixed)

    def _augmented(self, hidden: Tensor, cu_frames: Tensor, masked: Tensor | None) -> Tensor:
        """SpecAugment: `masked` frames become the learned vector; in training drawn ones, and channels."""
        config = self.config
        if not config.apply_spec_augment:
            return hidden
        lengths = [end - start for start, end in spans(cu_frames)]
        if masked is None and self.training and config.mask_time_prob > 0:
            masked = drawn_spans(
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
            drawn = drawn_spans(
                [config.hidden_size] * len(lengths),
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
            )
            channels = drawn.view(len(lengths), config.hidden_size).to(hidden.device)
            rows = torch.repeat_interleave(channels, torch.tensor(lengths, device=hidden.device), 0)
            hidden = hidden.masked_fill(rows, 0.0)
        return hidden


def pack_waveforms(input_values: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Padded waveforms [batch, samples] to packed ones [samples, 1] and their cu_seqlens.

    Raises:
        ValueError: not two-dimensional or not floating, a mask of another shape, or one that does not begin
            with the real samples of each row.
    """
    if input_values.dim() != 2 or not input_values.is_floating_point():
        raise ValueError(
            "input_values must be floats [batch, samples], "
            f"got {input_values.dtype} {list(input_values.shape)}"
        )
    rows, width = input_values.shape
    if attention_mask is None:
        return input_values.reshape(-1, 1), cumulative([width] * rows, input_values.device)
    if attention_mask.shape != input_values.shape:
        raise ValueError(
            f"attention_mask is {list(attention_mask.shape)}, input_values {list(input_values.shape)}"
        )
    mask = attention_mask.to(input_values.device).bool()
    lengths = mask.sum(1).tolist()
    if not torch.equal(mask, mask_of(lengths, width, mask.device)):
        raise ValueError("attention_mask must begin with the real samples of each row; pad on the right")
    return pack(input_values, mask)[:, None], cumulative(lengths, input_values.device)


def _mask(cu_tokens: Tensor, width: int) -> Tensor:
    return mask_of([end - start for start, end in spans(cu_tokens)], width, cu_tokens.device)
