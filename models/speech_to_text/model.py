"""Speech2Text (fairseq S2T, arXiv 2010.05171): log-mel frames in, tokens out."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.attention import HeadMask
from ..core.causal_lm import CausalLM
from ..core.config import PretrainedConfig
from ..core.generation import GenerationMixin
from ..core.losses import cross_entropy, shift_right
from ..core.model import PretrainedModel
from ..core.outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput, as_asked
from ..core.parameters import ParametersMixin
from .config import Speech2TextConfig
from .decoder import Speech2TextDecoder
from .encoder import Speech2TextEncoder


class Speech2TextModel(ParametersMixin, PretrainedModel):
    """Encoder and decoder without the output map.

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
        """Teacher-forced hidden states of every decoder token; each row's are what they would be alone.

        Args:
            input_features: [batch, frames, features].
            attention_mask: [batch, frames], 1 for real frames, which come first; all of them by default.
            decoder_input_ids: int64 [batch, target].
            decoder_attention_mask: [batch, past + target], 1 for real tokens; all by default.
            head_mask: [encoder layers, heads], factors of each head's attention weights; or one entry a
                layer, None for no factors.
            decoder_head_mask, cross_attn_head_mask: the same for the decoder's layers.
            encoder_outputs: of an earlier call, instead of running the encoder; `attention_mask` still masks
                its tokens.
            past_key_values: of an earlier call (or transformers' EncoderDecoderCache, which is extended in
                place), for the tokens before these. The encoder need not run again then.
            decoder_inputs_embeds: [batch, target, d_model] instead of decoder_input_ids, scaled already.
            use_cache: return `past_key_values`: for each layer keys and values of self-attention, then of
                cross-attention, [batch, heads, length, head_dim].
            output_attentions: also return attention weights, [batch, heads, target, source] for each layer.
            output_hidden_states: also return embeddings and each layer's output, the last normalized.
            return_dict: False for a plain tuple.

        The last four default to the configuration's.

        Raises:
            ValueError: inputs that are missing or do not fit, or longer than the model's positions.
        """
        recorded: dict[str, Any] = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        encoded, source_mask = self.encoder.encode_for_decoder(
            input_features, attention_mask, encoder_outputs, past_key_values, head_mask=head_mask, **recorded
        )
        decoded = self.decoder.run_padded(
            decoder_input_ids,
            decoder_inputs_embeds,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=None if encoded is None else encoded.last_hidden_state,
            encoder_attention_mask=source_mask,
            head_mask=decoder_head_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **recorded,
        )
        return as_asked(Seq2SeqModelOutput.from_halves(encoded, decoded), return_dict, self.config)

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


class Speech2TextForConditionalGeneration(CausalLM, GenerationMixin):
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

    def forward(  # type: ignore[override]
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
            labels: int64 [batch, target], -100 for no prediction. Without decoder_input_ids the decoder reads
                the labels shifted right.

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
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None if labels is None else cross_entropy(logits, labels)
        output = Seq2SeqLMOutput.from_base(inner, loss=loss, logits=logits)
        return as_asked(output, return_dict, self.config)

    # The encoder's half of the generation contract; the decoder's is `CausalLM`'s.

    def encoder_length(self, frames: int) -> int:
        """Encoder tokens for so many frames.

        Raises:
            ValueError: more than the encoder has positions for.
        """
        return self.model.encoder.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Packed frames [frames, features] to packed tokens [tokens, d_model] and their cu_seqlens."""
        return self.model.encoder.forward_packed(features, cu_frames)

    def get_encoder(self) -> Speech2TextEncoder:
        """The encoder, which takes padded features as in transformers."""
        return self.model.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """The decoder, which takes padded tokens as in transformers."""
        return self.model.decoder

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the decoder's token embedding; `tie_weights` makes the output map follow."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The map to the vocabulary."""
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the map to the vocabulary."""
        self.lm_head = new_embeddings
