"""`forward` methods of models, made from their argument names in transformers' order."""

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor

from .outputs import ModelOutput, as_asked

ENCODER_OUTPUT = "encoder_hidden_states encoder_attention_mask"
_RECORDED = ("output_attentions", "output_hidden_states")
OUTPUT_FLAGS = " ".join((*_RECORDED, "return_dict"))  # in every model's `forward`

# Descriptions of the arguments, which mean the same in all models and are optional.
_MEANINGS = {
    "input_ids": "int64 [batch, tokens].",
    "attention_mask": "[batch, past + tokens], 1 for tokens that are there; all by default.",
    "token_type_ids": "int64 [batch, tokens], embedded and added; in GPT-2 and GPT-Neo they are tokens too.",
    "position_ids": "int64 [batch or 1, tokens], rows of the position table; counted by default.",
    "inputs_embeds": "[batch, tokens, width] instead of input_ids: rows of the token embedding, times "
    "sqrt(width) where the model scales them. None counts as padding.",
    "encoder_hidden_states": "[batch, source, width]; without it layers leave cross-attention out, unless "
    "the past has its keys and values.",
    "encoder_attention_mask": "[batch, source], 1 for tokens that are there; all by default.",
    "encoder_outputs": "output of an earlier call of the encoder, which does not run then; attention_mask "
    "still tells which of its tokens are there.",
    "decoder_input_ids": "int64 [batch, target].",
    "decoder_attention_mask": "[batch, past + target], 1 for tokens that are there; all by default.",
    "decoder_inputs_embeds": "[batch, target, width] instead of decoder_input_ids; scaled already.",
    "input_features": "[batch, frames, features].",
    "input_values": "[batch, samples], as the feature extractor makes them.",
    "mask_time_indices": "bool [batch, frames], frames that the learned vector replaces, in training or not. "
    "Without effect where the configuration's apply_spec_augment is False.",
    "head_mask": "[layers, heads], factors of each head's attention weights.",
    "decoder_head_mask": "[layers, heads], the same for the decoder.",
    "cross_attn_head_mask": "[layers, heads], the same for cross-attention.",
    "past_key_values": "output of an earlier call, or a cache of transformers, for the tokens before these.",
    "labels": "int64 [batch, tokens], -100 where nothing is to be predicted; of a classifier [batch] or "
    "[batch, labels], as in `classification_loss`.",
    "use_cache": "return `past_key_values` for a next call.",
    "logits_to_keep": "return the logits of so many last positions; all for 0.",
    "mems": "refused, like perm_mask and target_mapping: inputs of pretraining.",
    "perm_mask": "refused.",
    "target_mapping": "refused.",
    "input_mask": "reverse of attention_mask, 1 for tokens that are not there.",
    "use_mems": "also return each layer's input, detached, by `mem_len` and `reuse_len`; by default "
    "`use_mems_eval` or, in training, `use_mems_train`.",
    "output_attentions": "also return attention weights, [batch, heads, tokens, keys] for each layer.",
    "output_hidden_states": "also return the embedded tokens and each layer's output, the last normalized "
    "where a norm follows.",
    "return_dict": "False for a plain tuple.",
}
_TYPES: dict[str, Any] = {
    **dict.fromkeys(("use_cache", "use_mems", *OUTPUT_FLAGS.split()), bool | None),
    **dict.fromkeys(("encoder_outputs", "past_key_values", "mems", "head_mask", "cross_attn_head_mask"), Any),
    "logits_to_keep": int,
}


def declare_forward(
    summary: str, arguments: str, meanings: Mapping[str, str] | None = None
) -> Callable[..., Any]:
    """Make the `forward` of a class that offers `forward_named`, with transformers' argument order.

    Output flags that are None take the configuration's values.

    Args:
        summary: first paragraph of the method's docstring.
        arguments: argument names in order, separated by spaces.
        meanings: descriptions of arguments that differ from those in most models, by name.

    Returns:
        A method that calls `forward_named` with the given arguments as keywords, and returns its output
        object, or that as a tuple where `return_dict` is False.
    """
    names = arguments.split()
    parameters = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    for name in names:
        default = 0 if name == "logits_to_keep" else None
        kind = _TYPES.get(name, Tensor | None)
        parameters.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind))
    signature = Signature(parameters)

    def forward(self: Any, *args: Any, **kwargs: Any) -> ModelOutput | tuple[Any, ...]:
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.forward() {error}") from None
        del given["self"]
        return_dict = given.pop("return_dict", None)
        for name in _RECORDED:
            if given.get(name) is None:
                given[name] = getattr(self.config, name)
        output: ModelOutput | tuple[Any, ...] = as_asked(
            self.forward_named(**given), return_dict, self.config
        )
        return output

    forward.__signature__ = signature  # type: ignore[attr-defined]
    known = _MEANINGS | dict(meanings or {})
    documented = "".join(f"    {name}: {known[name]}\n" for name in names)
    forward.__doc__ = (
        f"{summary}\n\nArgs:\n{documented}\nRaises:\n    ValueError: inputs that are missing or do not fit, "
        "or that are too long or too short for the model."
    )
    return forward


def split_by_part(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split a call's arguments into encoder arguments and decoder arguments, without their prefixes.

    Args:
        inputs: arguments of the decoder with the prefix "decoder_", of the encoder with "encoder_" or none.
    """
    encoder: dict[str, Any] = {}
    decoder: dict[str, Any] = {}
    for name, value in inputs.items():
        part = decoder if name.startswith("decoder_") else encoder
        part[name.removeprefix("decoder_" if part is decoder else "encoder_")] = value
    return encoder, decoder
