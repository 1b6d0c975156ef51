"""Speech2Text (fairseq S2T, arXiv 2010.05171): encoder-decoder model from log-mel frames to text tokens."""

from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.forward import OUTPUT_FLAGS, declare_forward, split_by_part
from ..core.generation import GenerationMixin
from ..core.model import PretrainedModel
from ..core.outputs import Seq2SeqModelOutput
from ..core.parameters import ParametersMixin
from ..core.seq2seq_lm import Seq2SeqLM
from .config import Speech2TextConfig
from .decoder import Speech2TextDecoder
from .encoder import FRAMES_MASK, Speech2TextEncoder

_INPUTS = (
    "input_features attention_mask decoder_input_ids decoder_attention_mask head_mask decoder_head_mask "
    "cross_attn_head_mask encoder_outputs past_key_values decoder_inputs_embeds"
)


class Speech2TextModel(ParametersMixin, PretrainedModel):
    """Speech2Text's encoder and decoder, without the language-modeling head."""

    config_class = Speech2TextConfig
    computed_keys = (
        "encoder.embed_positions.weights",
        "decoder.embed_positions.weights",
    )
    main_input_name = "input_features"
    embedding_name = "decoder.embed_tokens"

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
        cross_attn_head_mask: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        **inputs: Any,
    ) -> Seq2SeqModelOutput:
        """Implement `forward`, with keyword arguments only."""
        flags: dict[str, Any] = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
        }
        encoder_inputs, decoder_inputs = split_by_part(inputs)
        encoded, source_mask = self.encoder.encode_for_decoder(
            input_features, attention_mask, encoder_outputs, past_key_values, **flags, **encoder_inputs
        )
        decoded = self.decoder.run_padded(
            encoder_hidden_states=None if encoded is None else encoded.last_hidden_state,
            encoder_attention_mask=source_mask,
            cross_attn_head_mask=cross_attn_head_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **flags,
            **decoder_inputs,
        )
        return Seq2SeqModelOutput.from_halves(encoded, decoded)

    def get_encoder(self) -> Speech2TextEncoder:
        """Encoder of the model, called with padded features as in transformers."""
        return self.encoder

    def get_decoder(self) -> Speech2TextDecoder:
        """Decoder of the model, called with padded token ids as in transformers."""
        return self.decoder


class Speech2TextForConditionalGeneration(Seq2SeqLM, GenerationMixin):
    """Speech2Text with its language-modeling head, which offers logits, losses and `generate`."""

    config_class = Speech2TextConfig
    tied_weights: ClassVar[dict[str, str]] = {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    computed_keys = tuple(f"model.{key}" for key in Speech2TextModel.computed_keys)
    main_input_name = "input_features"
    decoder_name = "model.decoder"

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

    # The encoder's methods of the generation interface; the decoder's are those of `CausalLM`.

    def encoder_length(self, frames: int) -> int:
        """Number of encoder tokens for `frames` frames.

        Raises:
            ValueError: more tokens than the encoder has positions.
        """
        return self.model.encoder.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode packed frames [frames, features] to packed tokens [tokens, d_model] and their cu_seqlens."""
        return self.model.encoder.forward_packed(features, cu_frames)

    def get_encoder(self) -> Speech2TextEncoder:
        """Encoder of the model, called with padded features as in transformers."""
        return self.model.encoder
