"""SpeechEncoderDecoder (arXiv 2104.06678): a speech encoder joined to a text decoder by cross-attention."""

import os
from typing import Any

from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...scheduler.request import GenerationOptions
from ..core.attention import DecoderAttention
from ..core.forward import split_by_part
from ..core.generation import GenerationMixin
from ..core.losses import cross_entropy, shift_right
from ..core.model import PretrainedModel
from ..core.outputs import Seq2SeqLMOutput
from ..core.padding import one_input, pack_features, pack_waveforms
from ..core.parameters import ParametersMixin
from .config import SpeechEncoderDecoderConfig
from .parts import Name, check_parts, fresh_part, load_part, projection_width, share, standard_deviation

# Special tokens that come from the model's configuration where the generation configuration lacks them.
_SPECIAL = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")


class SpeechEncoderDecoderModel(ParametersMixin, GenerationMixin):
    """Speech encoder, text decoder with cross-attention, and a linear projection where their widths differ.

    Args:
        config: joint configuration, by default that of the given parts. A part that is not given is made of
            it, randomly initialized.
        encoder: speech model without a head.
        decoder: causal language model with cross-attention.

    Raises:
        ValueError: neither a configuration nor both parts are given; a part is of the wrong kind; the parts
            do not fit each other or the configuration.
    """

    config_class = SpeechEncoderDecoderConfig
    base_prefix = ""

    def __init__(
        self,
        config: SpeechEncoderDecoderConfig | None = None,
        encoder: PretrainedModel | None = None,
        decoder: PretrainedModel | None = None,
    ) -> None:
        if config is None:
            if encoder is None or decoder is None:
                raise ValueError("give a configuration, or both an encoder and a decoder")
            config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, decoder.config)
        elif not isinstance(config, SpeechEncoderDecoderConfig):
            raise ValueError(f"config is a {type(config).__name__}; give a SpeechEncoderDecoderConfig")
        config.tie_word_embeddings = False  # encoder and decoder share none; the decoder ties its own
        super().__init__(config)
        self.encoder: Any = fresh_part("encoder", config) if encoder is None else encoder
        self.decoder: Any = fresh_part("decoder", config) if decoder is None else decoder
        check_parts(self.encoder, self.decoder, config)
        share(config.encoder, self.encoder)
        share(config.decoder, self.decoder)
        self.encoder_output_dim, projected = projection_width(config)
        self.enc_to_dec_proj: nn.Linear | None = None
        if projected is not None:
            self.enc_to_dec_proj = nn.Linear(
                self.encoder_output_dim, projected, dtype=self.decoder.dtype, device=self.decoder.device
            )
            nn.init.normal_(self.enc_to_dec_proj.weight, std=standard_deviation(config.decoder))
            nn.init.zeros_(self.enc_to_dec_proj.bias)
        self.adopt_generation_defaults()

    @classmethod
    def from_encoder_decoder_pretrained(
        cls,
        encoder_pretrained_model_name_or_path: Name | None = None,
        decoder_pretrained_model_name_or_path: Name | None = None,
        *model_args: Any,
        **kwargs: Any,
    ) -> "SpeechEncoderDecoderModel":
        """Load an encoder and a decoder, each from its own checkpoint, and join them, in evaluation mode.

        Cross-attention that the decoder's checkpoint lacks is randomly initialized, with a warning, and so is
        the projection between the two. The head of a checkpoint (CTC, pretraining) is dropped.

        Args:
            encoder_pretrained_model_name_or_path: folder or Hub repository id of the encoder's checkpoint.
            decoder_pretrained_model_name_or_path: folder or Hub repository id of the decoder's checkpoint.
            *model_args: arguments of the encoder's constructor, after its configuration.
            **kwargs: with the prefix `encoder_` or `decoder_`, arguments of that part's `from_pretrained`,
                such as `encoder_config`, `encoder_dtype` and fields of its configuration, or `encoder_model`,
                a model to use unchanged; without a prefix, fields of the joint configuration.

        Raises:
            OSError: the checkpoint does not exist, or the Hub does not answer.
            TypeError: an argument is unknown to both parts.
            ValueError: a checkpoint is no supported speech encoder or text decoder; the parts do not fit each
                other; the weights do not fit the configuration.
        """
        options: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
        for name in list(kwargs):
            part, _, own = name.partition("_")
            if part in options and own and name not in _SPECIAL:
                options[part][own] = kwargs.pop(name)
        encoder = load_part(
            "encoder", encoder_pretrained_model_name_or_path, *model_args, **options["encoder"]
        )
        decoder = load_part("decoder", decoder_pretrained_model_name_or_path, **options["decoder"])
        config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
            encoder.config, decoder.config, **kwargs
        )
        return cls(config, encoder, decoder).eval()

    def forward(
        self,
        inputs: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Compute teacher-forced logits, and with labels the loss; padding does not change a row's result.

        Args:
            inputs: waveforms [batch, samples] or features [batch, frames, features], as the encoder takes
                them; also by the names `input_values` and `input_features`.
            attention_mask: [batch, samples or frames], 1 for real ones, which come first; all by default.
            past_key_values: key-value cache of an earlier call, or of transformers, for the preceding tokens.
                The encoder need not run again then.
            labels: int64 [batch, target], -100 is ignored. Without decoder_input_ids the decoder reads the
                labels shifted right.
            decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, encoder_outputs, use_cache,
                output_attentions, output_hidden_states, return_dict: as in
                `Speech2TextForConditionalGeneration.forward`.
            **kwargs: further arguments of the decoder, with the prefix `decoder_`, and of the encoder, with
                `encoder_` or no prefix.

        `encoder_last_hidden_state` is returned after projection to the decoder's width, as in transformers.

        Raises:
            TypeError: an argument is unknown to both parts.
            ValueError: inputs are missing, do not fit or are not supported.
        """
        encoder_options, decoder_options = split_by_part(kwargs)
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        flags = {  # None leaves it to the configuration of each part
            name: (getattr(self.config, name) or None) if flag is None else flag
            for name, flag in asked.items()
        }
        encoded, source_mask = self.encoder.encode_for_decoder(
            one_input(inputs, input_values, input_features),
            attention_mask,
            encoder_outputs,
            past_key_values,
            **flags,
            **encoder_options,
        )
        hidden = None if encoded is None else self._project(encoded.last_hidden_state)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=hidden,
            encoder_attention_mask=source_mask,
            inputs_embeds=decoder_inputs_embeds,
            past_key_values=past_key_values,
            use_cache=use_cache,
            return_dict=True,
            **flags,
            **decoder_options,
        )
        loss = None if labels is None else cross_entropy(decoded.logits, labels)
        if not (self.config.return_dict if return_dict is None else return_dict):
            first = () if loss is None else (loss,)
            return (*first, *decoded.to_tuple(), *(() if encoded is None else encoded.to_tuple()))
        return Seq2SeqLMOutput.from_halves(encoded, decoded, loss=loss, encoder_last_hidden_state=hidden)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Shift labels right by one to decoder input ids: the start token, then all but the last label.

        Raises:
            ValueError: the configuration has no decoder_start_token_id or pad_token_id.
        """
        tokens = []
        for name in ("pad_token_id", "decoder_start_token_id"):
            token = getattr(self.config, name, None)
            if token is None:
                own = getattr(self.config.decoder, name, None)
                hint = "" if own is None else f" (the decoder's own is {own})"
                raise ValueError(
                    f"labels need config.{name}, which is not set; set model.config.{name}{hint}"
                )
            tokens.append(token)
        return shift_right(labels, *tokens)

    def freeze_feature_encoder(self) -> None:
        """Freeze the weights of the encoder's convolutional feature encoder.

        Raises:
            ValueError: the encoder has no feature encoder.
        """
        freeze = getattr(self.encoder, "freeze_feature_encoder", None)
        if freeze is None:
            raise ValueError(f"a {type(self.encoder).__name__} has no feature encoder to freeze")
        freeze()

    def save_pretrained(self, folder: str | os.PathLike[str], **options: Any) -> None:
        """Write config.json, generation_config.json and the weights in transformers' format."""
        for part in (self.config.encoder, self.config.decoder):
            part.dtype = str(self.dtype).removeprefix("torch.")  # transformers loads a part in this dtype
        super().save_pretrained(folder, **options)

    # Generation interface, on packed inputs and outputs.

    @property
    def cache_shape(self) -> tuple[int, int, int]:
        """Shape of the decoder's key-value cache: layers, heads and head_dim."""
        return self.decoder.cache_shape

    @property
    def max_length(self) -> int:
        return self.decoder.max_length

    def encoder_length(self, frames: int) -> int:
        """Number of encoder tokens for `frames` samples or frames; ValueError for too few or too many."""
        return self.encoder.length(frames)

    def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Encode packed waveforms [samples, 1] or features [frames, features] for the decoder.

        Returns:
            encoder output [tokens, width], projected to the decoder's width, and its cu_seqlens.
        """
        hidden, cu_tokens = self.encoder.forward_packed(features, cu_frames)
        return self._project(hidden), cu_tokens

    def cross_key_values(self, encoded: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Cross-attention keys and values of each decoder layer, [tokens, heads, head_dim] each."""
        return self.decoder.cross_key_values(encoded)

    def decode_hidden(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Hidden states [tokens, width] of the decoder; arguments as in `CausalLM.decode`."""
        return self.decoder.decode_hidden(token_ids, positions, attention)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [tokens, vocabulary] of the decoder's hidden states [tokens, width]."""
        return self.decoder.logits(hidden)

    def decode(self, token_ids: Tensor, positions: Tensor, attention: DecoderAttention) -> Tensor:
        """Logits [tokens, vocabulary] of the next tokens; arguments as in `CausalLM.decode`."""
        return self.decoder.decode(token_ids, positions, attention)

    def pack_inputs(self, inputs: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        pack = pack_waveforms if self.encoder.main_input_name == "input_values" else pack_features
        return pack(inputs, attention_mask)

    def resolve_options(
        self, limit: int | None = None, /, *, default_max_length: int | None = None, **options: Any
    ) -> GenerationOptions:
        """Complete a call's generation options, as `GenerationMixin` does.

        Special tokens set in the model's configuration after the model was made are used too.
        """
        for name in _SPECIAL:
            token = getattr(self.config, name, None)
            if token is not None and getattr(self.generation_config, name) is None:
                options.setdefault(name, token)
        return super().resolve_options(limit, default_max_length=default_max_length, **options)

    def _project(self, hidden: Tensor) -> Tensor:
        """Project encoder output [..., width] to the decoder's width, where the two differ."""
        projection = self.enc_to_dec_proj
        if projection is None:
            return hidden
        rows = linear(hidden.flatten(0, -2), projection.weight, projection.bias, phase="encode")
        return rows.unflatten(0, hidden.shape[:-1])

    # Parts and parameters

    def get_encoder(self) -> Any:
        """Speech encoder of the model."""
        return self.encoder

    def get_decoder(self) -> Any:
        """Text decoder of the model, with its language-modeling head."""
        return self.decoder

    def get_input_embeddings(self) -> nn.Embedding:
        return self.decoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.decoder.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        return self.decoder.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the decoder's language-modeling head."""
        self.decoder.set_output_embeddings(new_embeddings)

    def tie_weights(self) -> None:
        self.decoder.tie_weights()

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the decoder's vocabulary, as in `ParametersMixin`; transformers raises an error here."""
        return self.decoder.resize_token_embeddings(*args, **kwargs)

    def parts(self) -> dict[str, PretrainedModel]:
        """Submodels by attribute name: encoder and decoder."""
        return {"encoder": self.encoder, "decoder": self.decoder}
