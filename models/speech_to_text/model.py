"""Speech2Text (fairseq S2T, arXiv 2010.05171): log-mel frames in, tokens out.

Everything inside runs on packed tokens. Padded tensors exist only in `forward`, of the models and of
their encoder and decoder, which packs what it is given and unpacks what it returns.
"""

from typing import Any, ClassVar, cast

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ..core.attention import DecoderAttention, HeadMask
from ..core.config import PretrainedConfig
from ..core.generation import GenerationMixin
from ..core.losses import cross_entropy, shift_right
from ..core.model import PretrainedModel
from ..core.outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
    as_asked,
    as_encoder_output,
)
from ..core.parameters import ParametersMixin
from .config import Speech2TextConfig
from .decoder import Speech2TextDecoder
from .encoder import Speech2TextEncoder


class Speech2TextModel(ParametersMixin, PretrainedModel):
    """Encoder and decoder without the map to the vocabulary.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    computed_keys: ClassVar[tuple[str, ...]] = (
        "encoder.embed_positions.weights",
        "decoder.embed_positions.weights",
    )
    main_input_name: ClassVar[str] = "input_features"

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.encoder = Speech2TextEncoder(config)
        self.decoder = Speech2TextDecoder(config)
        self.initialize()

    def forward(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: HeadMask | None = None,
        decoder_head_mask: HeadMask | None = None,
        cross_attn_head_mask: HeadMask | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        past_key_values: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqModelOutput | tuple[Any, ...]:
        """Teacher-forced: hidden states of every decoder position; each row's are what they would be alone.

        Args:
            input_features: [batch, frames, features].
            attention_mask: [batch, frames], 1 for real frames, which come first; all of them by default.
            decoder_input_ids: int64 [batch, target].
            decoder_attention_mask: [batch, past + target], 1 for tokens that are there; all by default.
            head_mask: [encoder layers, heads], what each head's attention weights are multiplied by; or one
                entry a layer, None where all heads count.
            decoder_head_mask, cross_attn_head_mask: the same for the decoder's layers.
            encoder_outputs: of an earlier call, instead of running the encoder; `attention_mask` still says
                which of its tokens are real.
            past_key_values: of an earlier call (or transformers' EncoderDecoderCache, which is extended in
                place), for the tokens before these. The encoder need not run again then.
            decoder_inputs_embeds: [batch, target, d_model] instead of decoder_input_ids, scaled already.
            use_cache: return `past_key_values`: for each layer keys and values of its self-attention, then of
                its cross-attention, [batch, heads, length, head_dim].
            output_attentions: also return attention weights, [batch, heads, target, source] for each layer.
            output_hidden_states: also return what is embedded and each layer's output, the last normalized.
            return_dict: False for a plain tuple.

        The last four are the configuration's where they are left out.

        Raises:
            ValueError: inputs that are missing or do not fit, or longer than the model's positions.
        """
        encoded: BaseModelOutput | None = None
        if encoder_outputs is not None:
            encoded = as_encoder_output(encoder_outputs)
        elif input_features is not None:
            encoded = cast(
                BaseModelOutput,
                self.encoder(
                    input_features, attention_mask, head_mask, output_attentions, output_hidden_states, True
                ),
            )
        elif past_key_values is None:
            raise ValueError(
                "input_features is missing; give features [batch, frames, features] or encoder_outputs"
            )
        source_mask = None
        if attention_mask is not None:
            width = encoded.last_hidden_state.shape[1] if encoded is not None else None
            source_mask = self.encoder.token_mask(attention_mask, width)
        decoded = cast(
            BaseModelOutputWithPastAndCrossAttentions,
            self.decoder(
                decoder_input_ids,
                decoder_attention_mask,
                encoded.last_hidden_state if encoded is not None else None,
                source_mask,
                decoder_head_mask,
                cross_attn_head_mask,
                past_key_values,
                decoder_inputs_embeds,
                use_cache,
                output_attentions,
                output_hidden_states,
                True,
            ),
        )
        output = Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state if encoded is not None else None,
            encoder_hidden_states=encoded.hidden_states if encoded is not None else None,
            encoder_attentions=encoded.attentions if encoded is not None else None,
        )
        return as_asked(output, return_dict, self.config)

    def get_encoder(self) -> Speech2TextEncoder:
        """The encoder, which takes padded features as in transformers."""
        return self.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """The decoder, which takes padded tokens as in transformers."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The decoder's token embedding."""
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the decoder's token embedding."""
        self.decoder.embed_tokens = value


class Speech2TextForConditionalGeneration(GenerationMixin, ParametersMixin, PretrainedModel):
    """Speech2Text with its map to the vocabulary: losses, logits and `generate`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    computed_keys: ClassVar[tuple[str, ...]] = tuple(f"model.{key}" for key in Speech2TextModel.computed_keys)
    main_input_name: ClassVar[str] = "input_features"

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.model = Speech2TextModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()
        self.adopt_generation_defaults()

    def forward(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        head_mask: HeadMask | None = None,
        decoder_head_mask: HeadMask | None = None,
        cross_attn_head_mask: HeadMask | None = None,
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
        hidden = inner.last_hidden_state
        logits = self._logits(hidden.flatten(0, 1)).view(*hidden.shape[:2], -1)
        output = Seq2SeqLMOutput(
            loss=None if labels is None else cross_entropy(logits, labels),
            logits=logits,
            past_key_values=inner.past_key_values,
            decoder_hidden_states=inner.decoder_hidden_states,
            decoder_attentions=inner.decoder_attentions,
            cross_attentions=inner.cross_attentions,
            encoder_last_hidden_state=inner.encoder_last_hidden_state,
            encoder_hidden_states=inner.encoder_hidden_states,
            encoder_attentions=inner.encoder_attentions,
        )
        return as_asked(output, return_dict, self.config)

    # What the generation loop drives: packed in, packed out.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Layers, heads and head_dim of the keys and values to keep."""
        heads = self.config.decoder_attention_heads
        return self.config.decoder_layers, heads, self.config.d_model // heads

    @property
    def max_length(self) -> int:
        """Tokens of the longest sequence, the start token counted."""
        return self.model.decoder.max_tokens

    def encoder_length(self, frames: int) -> int:
        """Encoder tokens for so many frames.

        Raises:
            ValueError: more than the encoder has positions for.
        """
        return self.model.encoder.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Packed frames [frames, features] to packed tokens [tokens, d_model] and their cu_seqlens."""
        return self.model.encoder.packed(features, cu_frames)

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
        return self._logits(self.model.decoder.forward_packed(token_ids, positions, attention))

    def _logits(self, hidden: Tensor) -> Tensor:
        return linear(hidden, self.lm_head.weight, phase="decode")

    def get_encoder(self) -> Speech2TextEncoder:
        """The encoder, which takes padded features as in transformers."""
        return self.model.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """The decoder, which takes padded tokens as in transformers."""
        return self.model.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """The decoder's token embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the decoder's token embedding; `tie_weights` makes the output map follow."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.lm_head = new_embeddings
