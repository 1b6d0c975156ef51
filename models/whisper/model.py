"""Whisper (arXiv 2212.04356): encoder-decoder model from log-mel frames to text tokens."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..core.causal_lm import NEXT_TOKEN_LOGITS
from ..core.fairseq_decoder import FairseqCausalLM
from ..core.forward import OUTPUT_FLAGS, declare_forward, split_by_part
from ..core.model import PretrainedModel
from ..core.outputs import (
    CausalLMOutputWithCrossAttentions,
    Seq2SeqModelOutput,
    as_encoder_output,
)
from ..core.padding import mask_of
from ..core.parameters import ParametersMixin
from ..core.seq2seq_lm import Seq2SeqLM
from ..core.span_masks import draw_spans
from .config import WhisperConfig
from .decoder import WhisperDecoder
from .encoder import FEATURES, WhisperEncoder
from .generation import WhisperGenerationMixin

_INPUTS = (
    "input_features attention_mask decoder_input_ids decoder_attention_mask encoder_outputs past_key_values "
    "decoder_inputs_embeds decoder_position_ids"
)
_MEANINGS = {
    **FEATURES,
    "encoder_outputs": "output of an earlier call of the encoder, which does not run then.",
    "decoder_position_ids": "int64 [batch or 1, target], rows of the position table; counted by default.",
}


class WhisperModel(ParametersMixin, PretrainedModel):
    """Whisper's encoder and decoder, without the language-modeling head."""

    config_class = WhisperConfig
    ignored_keys = (r"^proj_out\.",)
    main_input_name = "input_features"
    embedding_name = "decoder.embed_tokens"
    config: Any

    forward = declare_forward(
        "Teacher-forced hidden states of every decoder token; each row's are what they would be alone.",
        f"{_INPUTS} use_cache {OUTPUT_FLAGS}",
        _MEANINGS,
    )

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
        self.decoder.needs_encoder = True
        self.decoder.argument_prefix = "decoder_"
        self.initialize()

    def forward_named(
        self,
        *,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **decoder_inputs: Any,
    ) -> Seq2SeqModelOutput:
        """Implement `forward`, with keyword arguments only."""
        flags: dict[str, Any] = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        if input_features is not None and encoder_outputs is None:
            input_features = self._augmented(input_features, attention_mask)
        encoded, _ = self.encoder.encode_for_decoder(
            input_features, None, encoder_outputs, past_key_values, **flags
        )
        decoded = self.decoder.run_padded(
            encoder_hidden_states=None if encoded is None else encoded.last_hidden_state,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **flags,
            **split_by_part(decoder_inputs)[1],
        )
        return Seq2SeqModelOutput.from_halves(encoded, decoded)

    def get_encoder(self) -> WhisperEncoder:
        """Encoder of the model, called with features [batch, mels, frames] as in transformers."""
        return self.encoder

    def get_decoder(self) -> WhisperDecoder:
        """Decoder of the model, called with padded token ids as in transformers."""
        return self.decoder

    def freeze_encoder(self) -> None:
        """Freeze the encoder's weights, so that training changes the decoder only."""
        self.encoder.requires_grad_(False)

    def _augmented(self, features: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Apply SpecAugment in training: random spans of frames and of mels become zero; a new tensor."""
        config = self.config
        if not (config.apply_spec_augment and self.training):
            return features
        batch, mels, frames = features.shape
        if config.mask_time_prob > 0:
            lengths = [frames] * batch if attention_mask is None else attention_mask.sum(-1).tolist()
            drawn = draw_spans(
                lengths, config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
            )
            masked = torch.zeros(batch, frames, dtype=torch.bool)
            masked[mask_of(lengths, frames, masked.device)] = drawn
            features = features.masked_fill(masked.to(features.device)[:, None], 0.0)
        if config.mask_feature_prob > 0:
            drawn = draw_spans(
                [mels] * batch,
                config.mask_feature_prob,
                config.mask_feature_length,
                config.mask_feature_min_masks,
            )
            features = features.masked_fill(drawn.view(batch, mels, 1).to(features.device), 0.0)
        return features


class WhisperForConditionalGeneration(Seq2SeqLM, WhisperGenerationMixin):
    """Whisper with its language-modeling head, which offers logits, losses and `generate`."""

    config_class = WhisperConfig
    tied_weights: ClassVar[dict[str, str]] = {"proj_out.weight": "model.decoder.embed_tokens.weight"}
    main_input_name = "input_features"
    decoder_name = "model.decoder"
    head_name = "proj_out"
    config: Any

    forward = declare_forward(
        "Teacher-forced logits, and with labels the loss; each row's are what they would be alone.",
        f"{_INPUTS} labels use_cache {OUTPUT_FLAGS}",
        {
            **_MEANINGS,
            "labels": "int64 [batch, target], -100 for no prediction. Without decoder_input_ids the decoder "
            "reads the labels shifted right.",
        },
    )

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.model = WhisperModel(config)
        self.proj_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()
        self.adopt_generation_defaults()

    def freeze_encoder(self) -> None:
        """Freeze the encoder's weights, so that training changes the decoder only."""
        self.model.freeze_encoder()

    # The encoder's methods of the generation interface; the decoder's are those of `CausalLM`.

    def pack_inputs(self, inputs: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pack features [batch, mels, frames] to [all frames, mels] and their cu_seqlens; no mask is read."""
        return self.model.encoder.pack_inputs(inputs)

    def encoder_length(self, frames: int) -> int:
        """Number of encoder tokens for `frames` frames, always `max_source_positions`.

        Raises:
            ValueError: another number of frames than the model reads.
        """
        return self.model.encoder.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode packed frames [frames, mels] to packed tokens [tokens, d_model] and their cu_seqlens."""
        return self.model.encoder.forward_packed(features, cu_frames)

    def get_encoder(self) -> WhisperEncoder:
        """Encoder of the model, called with features [batch, mels, frames] as in transformers."""
        return self.model.encoder


class WhisperForCausalLM(FairseqCausalLM):
    """Whisper's decoder with its language-modeling head; encoder-decoder checkpoints load too."""

    config_class = WhisperConfig
    decoder_class = WhisperDecoder
    head_name = "proj_out"
    tied_weights: ClassVar[dict[str, str]] = {"proj_out.weight": "model.decoder.embed_tokens.weight"}
    main_input_name = "input_ids"

    forward = declare_forward(
        NEXT_TOKEN_LOGITS,
        "input_ids attention_mask encoder_outputs past_key_values inputs_embeds labels use_cache "
        f"{OUTPUT_FLAGS}",
        {"encoder_outputs": "output of an encoder, or its hidden states [batch, source, d_model]."},
    )

    def forward_named(  # type: ignore[override]
        self, *, encoder_outputs: Any = None, **inputs: Any
    ) -> CausalLMOutputWithCrossAttentions:
        """Implement `forward`, with keyword arguments only."""
        if encoder_outputs is not None and not isinstance(encoder_outputs, Tensor):
            encoder_outputs = as_encoder_output(encoder_outputs).last_hidden_state
        return super().forward_named(encoder_hidden_states=encoder_outputs, **inputs)
