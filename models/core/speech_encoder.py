"""Base class of speech encoders, with the methods that decoders and the generation loop call."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from .chunks import in_chunks
from .model import PretrainedModel
from .outputs import as_encoder_output
from .padding import mask_of


class SpeechEncoder(PretrainedModel):
    """Base of encoders of speech features or waveforms, without a head.

    Inputs are frames of features, [inputs, features], or samples of waveforms, [inputs, 1].
    """

    # Most tokens encoded at a time on a CPU, so that its cache holds one layer's output for the next layer.
    max_chunk_tokens: ClassVar[int]
    input_shape: ClassVar[str]  # description of the inputs in errors
    # Encode all packed sequences at once; `forward_packed` calls it, in chunks on a CPU.
    run_packed: Callable[..., tuple[Tensor, Tensor]]

    @property
    def inputs_per_token(self) -> int:
        """Stride of encoder tokens, in input frames or samples."""
        raise NotImplementedError

    def length(self, inputs: int) -> int:
        """Number of encoder tokens for a recording of `inputs` frames or samples.

        Raises:
            ValueError: more or fewer inputs than the model accepts, with both numbers.
        """
        raise NotImplementedError

    def padded_length(self, inputs: int) -> int:
        """Number of encoder tokens in the padded output of a batch padded to `inputs` frames or samples."""
        return self.length(inputs)

    def forward_packed(self, inputs: Tensor, cu_inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Encode packed sequences; each one's result is bit-identical to that of the sequence alone.

        Args:
            inputs: [inputs, features] or [inputs, 1], with their cu_seqlens `cu_inputs`, int32 [n + 1].
            **options: options of the family's `run_packed`.

        Returns:
            hidden states [tokens, width] and the tokens' cu_seqlens, int32 [n + 1].

        Raises:
            ValueError: inputs of another shape, or a recording that is too short or too long.
        """
        run = partial(self.run_packed, **options)
        if inputs.device.type != "cpu" or self.training:
            return run(inputs, cu_inputs)
        return in_chunks(run, inputs, cu_inputs, self.max_chunk_tokens * self.inputs_per_token)

    def token_mask(self, attention_mask: Tensor, width: int | None = None) -> Tensor:
        """Mask of the real tokens in a padded encoder output, from that of its inputs: bool [batch, width].

        Args:
            attention_mask: mask of the inputs, [batch, frames or samples].
            width: number of tokens in the padded output; that for all input columns by default.

        Raises:
            ValueError: a row has more tokens than `width`, or is too short or too long for the model.
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
        """Encoder output for cross-attention, computed or given, and the mask of its tokens if there is one.

        Args:
            inputs: padded inputs of `forward`.
            attention_mask: mask of the inputs, [batch, frames or samples].
            encoder_outputs: output of an earlier call, used instead of running the encoder.
            past: past_key_values of the decoder; with them inputs and encoder_outputs may both be None.
            **options: further arguments of `forward`.

        Raises:
            ValueError: inputs are missing or do not fit the model.
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
