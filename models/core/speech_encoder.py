"""Encoders of speech: a base with what decoders and the generation loop ask of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from .chunks import in_chunks
from .model import PretrainedModel
from .outputs import as_encoder_output
from .padding import mask_of


class SpeechEncoder(PretrainedModel):
    """Encoder of features or waveforms, without a head.

    Its inputs are the frames of features [inputs, features] or the samples of waveforms [inputs, 1].
    """

    # On a CPU so many tokens are encoded at a time, as one layer's output then is in the cache for the next.
    max_chunk_tokens: ClassVar[int]
    input_shape: ClassVar[str]  # for errors
    # `forward_packed` of all sequences at once.
    run_packed: Callable[..., tuple[Tensor, Tensor]]

    @property
    def inputs_per_token(self) -> int:
        """Frames or samples from one token to the next."""
        raise NotImplementedError

    def length(self, inputs: int) -> int:
        """Tokens for so many frames or samples.

        Raises:
            ValueError: more or fewer than the model takes, with both numbers.
        """
        raise NotImplementedError

    def padded_length(self, inputs: int) -> int:
        """Tokens of a padded output for so many frames or samples."""
        return self.length(inputs)

    def forward_packed(self, inputs: Tensor, cu_inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Encode packed sequences; each one's bits are those that it has alone.

        Args:
            inputs: [inputs, features] or [inputs, 1], with their cu_seqlens `cu_inputs`, int32 [n + 1].
            **options: of a family's `run_packed`.

        Returns:
            [tokens, width] and the tokens' cu_seqlens, int32 [n + 1].

        Raises:
            ValueError: inputs of another shape, or a recording that is too short or too long.
        """
        run = partial(self.run_packed, **options)
        if inputs.device.type != "cpu" or self.training:
            return run(inputs, cu_inputs)
        return in_chunks(run, inputs, cu_inputs, self.max_chunk_tokens * self.inputs_per_token)

    def token_mask(self, attention_mask: Tensor, width: int | None = None) -> Tensor:
        """Mask of the tokens of a padded output: bool [batch, width].

        Args:
            attention_mask: [batch, frames or samples].
            width: tokens of the padded output; those of all inputs by default.

        Raises:
            ValueError: a row has more tokens than that, or is too short or too long for the model.
        """
        lengths = [self.length(inputs) for inputs in attention_mask.bool().sum(1).tolist()]
        width = self.padded_length(attention_mask.shape[1]) if width is None else width
        if max(lengths, default=0) > width:
            raise ValueError(
                f"attention_mask {list(attention_mask.shape)} makes {max(lengths)} encoder tokens, and the "
                f"encoder's output has {width}; give the mask that it was made with"
            )
        return mask_of(lengths, width, attention_mask.device)

    def encode_for_decoder(
        self,
        inputs: Tensor | None,
        attention_mask: Tensor | None,
        encoder_outputs: Any,
        past: Any,
        **options: Any,
    ) -> tuple[Any, Tensor | None]:
        """Encoder output that a decoder attends to, and the mask of its tokens where there is one.

        Args:
            inputs: padded, as `forward` takes them.
            attention_mask: [batch, frames or samples].
            encoder_outputs: of an earlier call, instead of running the encoder.
            past: the decoder's; where it is given, inputs and encoder_outputs may both be missing.
            **options: of `forward`.

        Raises:
            ValueError: no inputs, or such as do not fit.
        """
        encoded = None
        if encoder_outputs is not None:
            encoded = as_encoder_output(encoder_outputs)
        elif inputs is not None:
            encoded = self(inputs, attention_mask=attention_mask, return_dict=True, **options)
        elif past is None:
            raise ValueError(f"{self.main_input_name} is missing; give {self.input_shape} or encoder_outputs")
        if attention_mask is None:
            return encoded, None
        width = None if encoded is None else encoded.last_hidden_state.shape[1]
        return encoded, self.token_mask(attention_mask, width)
