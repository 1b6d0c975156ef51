"""Speech2Text (fairseq S2T, arXiv 2010.05171): log-mel frames in, tokens out.

Everything inside runs on packed tokens. Padded tensors exist only in `forward`, which packs what it is
given and unpacks what it returns.
"""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.embedding import add_positions, embedding
from ..kernels.linear import linear
from ..kernels.packing import cumulative, pack, positions_within, unpack
from .attention import DecoderAttention, PackedAttention
from .configuration import PretrainedConfig
from .generation import GenerationMixin
from .outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from .padded import mask_of, pack_features, pad_weights
from .pretrained import PretrainedModel
from .speech_to_text_config import Speech2TextConfig
from .speech_to_text_layers import (
    Conv1dSubsampler,
    DecoderLayer,
    EncoderLayer,
    SinusoidalPositions,
    normalise,
)


class Speech2TextEncoder(nn.Module):
    """Subsampler, positions and encoder layers."""

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__()
        self.config = config
        self.conv = Conv1dSubsampler(config)
        self.embed_positions = SinusoidalPositions(
            config.max_source_positions, config.d_model, config.pad_token_id
        )
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(
        self, features: Tensor, cu_frames: Tensor, weights: list[list[Tensor]] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Packed frames [frames, features] to packed tokens [tokens, d_model] and their cu_seqlens."""
        hidden, cu_tokens = self.conv(features, cu_frames)
        positions = self._positions(cu_tokens, hidden.shape[0])
        hidden = add_positions(hidden, positions, self.embed_positions.weights, embedding_scale(self.config))
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        for layer in self.layers:
            if not skipped(self.config.encoder_layerdrop, self.training):
                hidden = layer(hidden, cu_tokens, weights)
        return normalise(self.layer_norm, hidden), cu_tokens

    def _positions(self, cu_tokens: Tensor, total: int) -> Tensor:
        padding = self.embed_positions.padding_idx
        if padding == 0:
            # transformers reads positions off a padding mask in which real frames are 0; with 0 as the
            # padding token every frame looks like padding to it and gets the zero vector.
            return torch.zeros(total, dtype=torch.int64, device=cu_tokens.device)
        return positions_within(cu_tokens, total) + padding + 1


class Speech2TextDecoder(nn.Module):
    """Token embedding, positions and decoder layers."""

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, config.pad_token_id)
        self.embed_positions = SinusoidalPositions(
            config.max_target_positions, config.d_model, config.pad_token_id
        )
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Tokens [tokens] at rows `positions` of the position table to hidden states [tokens, d_model]."""
        hidden = embedding(
            token_ids,
            positions,
            self.embed_tokens.weight,
            self.embed_positions.weights,
            embedding_scale(self.config),
        )
        hidden = F.dropout(hidden, self.config.dropout, self.training)
        for layer in self.layers:
            if not skipped(self.config.decoder_layerdrop, self.training):
                hidden = layer(hidden, attention)
        return normalise(self.layer_norm, hidden)

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each layer's cross-attention keys and values, [source tokens, heads, head_dim] each."""
        layers = cast(Iterable[DecoderLayer], self.layers)
        return [layer.encoder_attn.key_value(encoded) for layer in layers]


class Speech2TextModel(PretrainedModel):
    """Encoder and decoder without the map to the vocabulary.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    computed_keys: ClassVar[tuple[str, ...]] = (
        "encoder.embed_positions.weights",
        "decoder.embed_positions.weights",
    )

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.encoder = Speech2TextEncoder(config)
        self.decoder = Speech2TextDecoder(config)
        self.initialise()

    def forward(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqModelOutput | tuple[Any, ...]:
        """Teacher-forced: hidden states of every decoder position.

        Args:
            input_features: [batch, frames, features].
            attention_mask: [batch, frames], 1 for real frames, which come first; all of them by default.
            decoder_input_ids: int64 [batch, target].
            decoder_attention_mask: [batch, target], 1 for tokens that are there; all by default.
            encoder_outputs: of an earlier call, instead of running the encoder; `attention_mask` still says
                which of its tokens are real.
            output_attentions: also return attention weights, [batch, heads, target, source] for each layer.
            return_dict: False for a plain tuple.

        Raises:
            ValueError: inputs that are missing, do not fit or are not supported.
        """
        refuse(
            head_mask=head_mask,
            decoder_head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            output_hidden_states=output_hidden_states or None,
        )
        if decoder_input_ids is None:
            raise ValueError("decoder_input_ids is missing; give the tokens that the decoder is to read")
        record = self.config.output_attentions if output_attentions is None else output_attentions
        encoder_weights: list[list[Tensor]] | None = [] if record else None
        encoded, cu_source, source_mask = self._encode(
            input_features, attention_mask, encoder_outputs, encoder_weights
        )
        target_mask = torch.ones_like(decoder_input_ids, dtype=torch.bool)
        if decoder_attention_mask is not None:
            target_mask = decoder_attention_mask.bool()
        token_ids = pack(decoder_input_ids, target_mask)
        cu_target = cumulative(target_mask.sum(1))
        attention = PackedAttention(
            cu_target,
            cu_source,
            self.decoder.cross_key_values(encoded),
            dropout=self.config.attention_dropout if self.training else 0.0,
            record=record,
        )
        hidden = self.decoder(token_ids, self._target_positions(token_ids, cu_target), attention)
        output = Seq2SeqModelOutput(
            last_hidden_state=unpack(hidden, target_mask),
            encoder_last_hidden_state=unpack(encoded, source_mask),
            encoder_attentions=pad_weights(encoder_weights, source_mask, source_mask),
            decoder_attentions=pad_weights(attention.self_weights, target_mask, target_mask),
            cross_attentions=pad_weights(attention.cross_weights, target_mask, source_mask),
        )
        return output if wants_dict(return_dict, self.config) else output.to_tuple()

    def get_encoder(self) -> Speech2TextEncoder:
        """The encoder, on packed frames."""
        return self.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """The decoder, on packed tokens."""
        return self.decoder

    def _encode(
        self,
        input_features: Tensor | None,
        attention_mask: Tensor | None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None,
        weights: list[list[Tensor]] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Packed encoder output, its cu_seqlens, and where its tokens lie in a padded one [batch, source]."""
        length = self.encoder.conv.length
        if encoder_outputs is not None:
            padded = encoder_outputs[0]
            lengths = [padded.shape[1]] * padded.shape[0]
            if attention_mask is not None:
                lengths = [length(int(frames)) for frames in attention_mask.sum(1)]
            mask = mask_of(lengths, padded.shape[1], padded.device)
            return pack(padded, mask), cumulative(lengths, padded.device), mask
        if input_features is None:
            raise ValueError(
                "input_features is missing; give features [batch, frames, features] or encoder_outputs"
            )
        features, cu_frames = pack_features(input_features, attention_mask)
        self.check_frames(int((cu_frames[1:] - cu_frames[:-1]).max()))
        encoded, cu_source = self.encoder(features.to(self.dtype), cu_frames, weights)
        lengths = (cu_source[1:] - cu_source[:-1]).tolist()
        return encoded, cu_source, mask_of(lengths, length(input_features.shape[1]), encoded.device)

    def check_frames(self, frames: int) -> None:
        """Refuse an utterance of more frames than the encoder has positions for.

        Raises:
            ValueError: with both numbers.
        """
        limit = self.encoder.embed_positions.limit
        tokens = self.encoder.conv.length(frames)
        if tokens > limit:
            raise ValueError(
                f"{frames} frames are {tokens} encoder positions, and the model has {limit} "
                f"(about {limit * 2**self.config.num_conv_layers / 100:.0f} s); split the recording"
            )

    def _target_positions(self, token_ids: Tensor, cu_target: Tensor) -> Tensor:
        """Rows of the position table: counted from padding_idx + 1, over the tokens that are not padding."""
        padding = self.config.pad_token_id
        real = (token_ids != padding).long()
        before = torch.cumsum(real, 0)
        starts = cu_target[:-1].long()
        lengths = (cu_target[1:] - cu_target[:-1]).long()
        base = torch.repeat_interleave(
            (before - real)[starts.clamp(max=max(token_ids.numel() - 1, 0))], lengths
        )
        positions = (before - base) * real + padding
        limit = self.decoder.embed_positions.limit
        longest = int(lengths.max()) if lengths.numel() else 0
        if longest > limit:
            raise ValueError(f"{longest} decoder tokens, and the model has {limit} positions; give fewer")
        return positions


class Speech2TextForConditionalGeneration(GenerationMixin, PretrainedModel):
    """Speech2Text with its map to the vocabulary: losses, logits and `generate`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    computed_keys: ClassVar[tuple[str, ...]] = tuple(f"model.{key}" for key in Speech2TextModel.computed_keys)

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.model = Speech2TextModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialise()
        self.tie_weights()
        self.adopt_generation_defaults()

    def tie_weights(self) -> None:
        """Make the output map the token embedding, where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.decoder.embed_tokens.weight

    def forward(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: Tensor | None = None,
        decoder_head_mask: Tensor | None = None,
        cross_attn_head_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Teacher-forced logits, and with labels the loss; see `Speech2TextModel.forward`.

        Args:
            labels: int64 [batch, target], -100 where nothing is to be predicted. Without decoder_input_ids
                the decoder reads the labels shifted right.

        Raises:
            ValueError: inputs that are missing, do not fit or are not supported.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = shift_right(
                labels, self.config.pad_token_id, self.config.decoder_start_token_id
            )
        inner = self.model(
            input_features,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            head_mask,
            decoder_head_mask,
            cross_attn_head_mask,
            encoder_outputs,
            past_key_values,
            decoder_inputs_embeds,
            use_cache,
            output_attentions,
            output_hidden_states,
            True,
        )
        logits = self._logits(inner.last_hidden_state.flatten(0, 1)).view(
            *inner.last_hidden_state.shape[:2], -1
        )
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            decoder_attentions=inner.decoder_attentions,
            cross_attentions=inner.cross_attentions,
            encoder_last_hidden_state=inner.encoder_last_hidden_state,
            encoder_attentions=inner.encoder_attentions,
        )
        return output if wants_dict(return_dict, self.config) else output.to_tuple()

    # What the generation loop drives: packed in, packed out.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads and head_dim of the keys and values to keep."""
        heads = self.config.decoder_attention_heads
        return self.config.decoder_layers, heads, self.config.d_model // heads

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, the start token counted."""
        return self.model.decoder.embed_positions.limit

    def encoder_length(self, frames: int) -> int:
        """Encoder tokens for so many frames.

        Raises:
            ValueError: more than the encoder has positions for.
        """
        self.model.check_frames(frames)
        return self.model.encoder.conv.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Packed frames [frames, features] to packed tokens [tokens, d_model] and their cu_seqlens."""
        return self.model.encoder(features.to(self.dtype), cu_frames)

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each decoder layer's cross-attention keys and values, [tokens, heads, head_dim] each."""
        return self.model.decoder.cross_key_values(encoded)

    def decode(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Logits [tokens, vocabulary] of the next token after each of `token_ids` [tokens].

        Args:
            token_ids: int [tokens].
            positions: int [tokens], each token's place in its sequence, from 0.
            attention: the layout and cache to attend in.
        """
        padding = self.config.pad_token_id
        rows = torch.where(token_ids == padding, padding, positions + padding + 1)
        return self._logits(self.model.decoder(token_ids, rows, attention))

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.lm_head.weight)

    def get_encoder(self) -> Speech2TextEncoder:
        """The encoder, on packed frames."""
        return self.model.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """The decoder, on packed tokens."""
        return self.model.decoder


def embedding_scale(config: Speech2TextConfig) -> float:
    """What embeddings are multiplied by."""
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0


def skipped(layerdrop: float, training: bool) -> bool:
    """Whether LayerDrop (arXiv 1909.11556) skips this layer now."""
    return training and layerdrop > 0 and torch.rand(()).item() < layerdrop


def shift_right(labels: Tensor, pad_token_id: int, start_token_id: int) -> Tensor:
    """What a decoder reads to predict `labels`: the start token, then all but the last; -100 is padding."""
    start = labels.new_full((labels.shape[0], 1), start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, pad_token_id)


def wants_dict(return_dict: bool | None, config: PretrainedConfig) -> bool:
    """Whether to return an output object rather than a tuple."""
    return config.return_dict if return_dict is None else return_dict


def refuse(**arguments: Any) -> None:
    """Refuse arguments that are part of the signature and not supported yet.

    Raises:
        ValueError: naming them.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise ValueError(f"not supported yet: {', '.join(given)}; leave them out")
