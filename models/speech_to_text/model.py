"""Speech2Text (fairseq S2T, arXiv 2010.05171): log-mel frames in, tokens out."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.causal_lm import CausalLM
from ..core.config import PretrainedConfig
from ..core.forward import OUTPUT_FLAGS, declare_forward
from ..core.generation import GenerationMixin
from ..core.losses import cross_entropy, shift_right
from ..core.model import PretrainedModel
from ..core.outputs import Seq2SeqLMOutput, Seq2SeqModelOutput
from ..core.parameters import ParametersMixin
from .config import Speech2TextConfig
from .decoder import Speech2TextDecoder
from .encoder import FRAMES_MASK, Speech2TextEncoder

_INPUTS = (
    "input_features attention_mask decoder_input_ids decoder_attention_mask head_mask decoder_head_mask "
    "cross_attn_head_mask encoder_outputs past_key_values decoder_inputs_embeds"
)


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

    forward = declare_forward(
        "Teacher-forced hidden states of every decoder token; each row's are what they would be alone.",
        f"{_INPUTS} use_cache {OUTPUT_FLAGS}",
        FRAMES_MASK,
    )

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.encoder = Speech2TextEncoder(config)
        self.decoder = Speech2TextDecoder(config)
        self.initialize()

    def forward_named(
        self,
        *,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        head_mask: Any = None,
        decoder_input_ids: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_head_mask: Any = None,
        cross_attn_head_mask: Any = None,
        use_cache: bool | None = None,
        **flags: Any,
    ) -> Seq2SeqModelOutput:
        """`forward` with its arguments by name.

        Raises:
            ValueError: inputs that are missing or do not fit, or longer than the model's positions.
        """
        encoded, source_mask = self.encoder.encode_for_decoder(
            input_features, attention_mask, encoder_outputs, past_key_values, head_mask=head_mask, **flags
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
            **flags,
        )
        return Seq2SeqModelOutput.from_halves(encoded, decoded)

    def get_encoder(self) -> Speech2TextEncoder:
        """Encoder, which takes padded features as in transformers."""
        return self.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """Decoder, which takes padded tokens as in transformers."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        """Token embedding of the decoder."""
        return self.decoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the decoder's token embedding."""
        self.decoder.embed_tokens = value


class Speech2TextForConditionalGeneration(CausalLM, GenerationMixin):
    """Speech2Text with its output map: losses, logits and `generate`.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = Speech2TextConfig
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    computed_keys: ClassVar[tuple[str, ...]] = tuple(f"model.{key}" for key in Speech2TextModel.computed_keys)
    main_input_name: ClassVar[str] = "input_features"
    decoder_name: ClassVar[str] = "model.decoder"

    forward = declare_forward(
        "Teacher-forced logits, and with labels the loss; each row's are what they would be alone.",
        f"{_INPUTS} labels use_cache {OUTPUT_FLAGS}",
        {
            **FRAMES_MASK,
            "labels": "int64 [batch, target], -100 for no prediction. Without decoder_input_ids the decoder "
            "reads the labels shifted right.",
        },
    )

    def __init__(self, config: Speech2TextConfig) -> None:
        super().__init__(config)
        self.model = Speech2TextModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.initialize()
        self.tie_weights()
        self.adopt_generation_defaults()

    def forward_named(self, *, labels: Tensor | None = None, **inputs: Any) -> Seq2SeqLMOutput:  # type: ignore[override]
        """`forward` with its arguments by name.

        Raises:
            ValueError: inputs that are missing, do not fit or are not supported.
        """
        decoder_inputs = (inputs.get("decoder_input_ids"), inputs.get("decoder_inputs_embeds"))
        if labels is not None and decoder_inputs == (None, None):
            inputs["decoder_input_ids"] = shift_right(
                labels, self.config.pad_token_id, self.config.decoder_start_token_id
            )
        inner = self.model.forward_named(**inputs)
        hidden = inner.last_hidden_state
        logits = self.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])
        loss = None if labels is None else cross_entropy(logits, labels)
        return Seq2SeqLMOutput.from_base(inner, loss=loss, logits=logits)

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
        """Encoder, which takes padded features as in transformers."""
        return self.model.encoder
