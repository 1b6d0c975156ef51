"""Functions that make, load and check the encoder and decoder of a SpeechEncoderDecoder."""

import os
import warnings
from typing import Any

from torch import nn

from ..checkpoints.files import Checkpoint, open_checkpoint
from ..core.causal_lm import CausalLM
from ..core.config import PretrainedConfig
from ..core.model import PretrainedModel
from ..core.speech_encoder import SpeechEncoder
from ..registry import families_with, family_of_checkpoint, family_of_config
from .config import KINDS, SpeechEncoderDecoderConfig

Name = str | os.PathLike[str] | Checkpoint


def fresh_part(part: str, config: SpeechEncoderDecoderConfig) -> PretrainedModel:
    """Make a randomly initialized encoder or decoder, which shares its part of the joint configuration.

    Args:
        part: "encoder" or "decoder".
        config: joint configuration.
    """
    own = getattr(config, part)
    return family_of_config(own, families_with(KINDS[part]), part).load(KINDS[part])(own)


def load_part(part: str, name_or_dir: Name | None, *model_args: Any, **options: Any) -> Any:
    """Load an encoder or decoder from a checkpoint, in evaluation mode.

    Args:
        part: "encoder" or "decoder".
        name_or_dir: folder or Hub repository id of the checkpoint.
        *model_args: arguments of the constructor, after the configuration.
        **options: options of `PretrainedModel.from_pretrained`; or `model`, which is returned unchanged.

    Raises:
        OSError: the checkpoint does not exist, or the Hub does not answer.
        ValueError: neither checkpoint nor model is given; the checkpoint is of the wrong kind; the weights do
            not fit.
    """
    if (model := options.pop("model", None)) is not None:
        return model
    if name_or_dir is None:
        raise ValueError(f"give the {part}: a checkpoint's name, or a model as {part}_model")
    families = families_with(KINDS[part])
    checkpoint, options = open_checkpoint(name_or_dir, **options)
    config = options.pop("config", None)
    if config is None:
        family = family_of_checkpoint(checkpoint, families)
        config = family.load("config").from_pretrained(checkpoint)
        for name in ("is_decoder", "add_cross_attention"):
            if part == "decoder" or getattr(config, name, False):
                setattr(config, name, part == "decoder")
    else:
        family = family_of_config(config, families, f"{part}_config")
    return family.load(KINDS[part]).from_pretrained(checkpoint, *model_args, config=config, **options)


def check_parts(encoder: Any, decoder: Any, config: SpeechEncoderDecoderConfig) -> None:
    """Check that encoder and decoder fit each other and the joint configuration.

    Raises:
        ValueError: they do not fit; the message gives the remedy.
    """
    if not isinstance(encoder, SpeechEncoder):
        raise ValueError(
            f"the encoder is a {type(encoder).__name__}; give a speech model without a head, "
            "such as Wav2Vec2Model"
        )
    if not isinstance(decoder, CausalLM):
        raise ValueError(
            f"the decoder is a {type(decoder).__name__}, which cannot attend to an encoder; give a causal "
            "language model, such as BertLMHeadModel"
        )
    if not decoder.get_decoder().has_cross_attention:
        raise ValueError(
            f"the decoder, a {type(decoder).__name__}, was made without cross-attention; set is_decoder=True "
            "and add_cross_attention=True in its configuration before it is made, or let "
            "SpeechEncoderDecoderConfig.from_encoder_decoder_configs do it"
        )
    rows, wanted = decoder.get_input_embeddings().weight.shape[0], config.decoder.vocab_size
    if rows != wanted:
        raise ValueError(
            f"the decoder knows {rows} tokens, and config.decoder.vocab_size is {wanted}; give the "
            "configuration that the decoder was made with"
        )
    if (encoder.dtype, encoder.device) != (decoder.dtype, decoder.device):
        raise ValueError(
            f"the encoder is {encoder.dtype} on {encoder.device}, the decoder {decoder.dtype} on "
            f"{decoder.device}; load both with one dtype and device"
        )
    for name, part, own in (("encoder", encoder, config.encoder), ("decoder", decoder, config.decoder)):
        if part.config is not own and part.config.to_dict() != own.to_dict():
            warnings.warn(f"the {name}'s own configuration is replaced by config.{name}", stacklevel=3)


def projection_width(config: SpeechEncoderDecoderConfig) -> tuple[int, int | None]:
    """Width of the encoder's output, and the width it is projected to (None without a projection).

    Raises:
        ValueError: the widths do not match; transformers fails at the first call instead.
    """
    encoder, decoder = config.encoder, config.decoder
    given = encoder.hidden_size
    announced = getattr(encoder, "output_hidden_size", None) or given
    if getattr(encoder, "add_adapter", False):
        given = announced
    read = getattr(decoder, "cross_attention_hidden_size", None)
    if read is not None and read != encoder.hidden_size:
        raise ValueError(
            f"the decoder's cross_attention_hidden_size is {read}, and the encoder's hidden_size is "
            f"{encoder.hidden_size}; they must be equal"
        )
    if read is None and announced != decoder.hidden_size:
        if given != encoder.hidden_size:
            raise ValueError(
                f"the encoder's adapter gives {given} numbers, and the projection to the decoder's "
                f"{decoder.hidden_size} reads {encoder.hidden_size}; set the encoder's output_hidden_size to "
                "one of these two"
            )
        return given, decoder.hidden_size
    if (wanted := decoder.hidden_size if read is None else read) != given:
        raise ValueError(
            f"the encoder gives {given} numbers, and the decoder reads {wanted}; set the encoder's "
            "output_hidden_size to its hidden_size, so that its output is projected"
        )
    return given, None


def share(config: PretrainedConfig, part: nn.Module) -> None:
    """Make all modules of a part refer to its configuration in the joint one, so that changes there apply."""
    own = part.config
    for module in part.modules():
        if getattr(module, "config", None) is own:
            module.config = config  # type: ignore[assignment]


def standard_deviation(config: PretrainedConfig) -> float:
    """Standard deviation of randomly initialized weights, from the field that the configuration has."""
    for name in ("initializer_range", "init_std"):
        if (value := getattr(config, name, None)) is not None:
            return float(value)
    return 0.02
