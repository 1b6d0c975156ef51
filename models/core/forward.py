"""`forward` of models that read text, declared by the order of its arguments."""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Any

from torch import Tensor

from .outputs import ModelOutput, as_asked

OUTPUT_FLAGS = ("output_attentions", "output_hidden_states", "return_dict")

_TENSOR, _FLAG = Tensor | None, bool | None
# Type and meaning of each argument, alike in all models.
_ARGUMENTS: dict[str, tuple[Any, str]] = {
    "input_ids": (_TENSOR, "int64 [batch, tokens]."),
    "attention_mask": (
        _TENSOR,
        "[batch, past + tokens], 1 for tokens that are there, padded on either side; all by default.",
    ),
    "token_type_ids": (
        _TENSOR,
        "int64 [batch, tokens], added as vectors of their own table (in GPT-2 and GPT-Neo the tokens').",
    ),
    "position_ids": (_TENSOR, "int64 [batch or 1, tokens], rows of the position table; counted by default."),
    "inputs_embeds": (
        _TENSOR,
        "[batch, tokens, width] instead of input_ids: rows of the token embedding, times sqrt(width) where "
        "the model scales them. None counts as padding.",
    ),
    "encoder_hidden_states": (
        _TENSOR,
        "[batch, source, width]; without it layers leave cross-attention out, unless the past has its keys "
        "and values.",
    ),
    "encoder_attention_mask": (
        _TENSOR,
        "[batch, source], 1 for tokens that are there; all by default.",
    ),
    "encoder_outputs": (
        Any,
        "output of an earlier call of the encoder, which does not run then; attention_mask still says which "
        "of its tokens are there.",
    ),
    "decoder_input_ids": (_TENSOR, "int64 [batch, target]."),
    "decoder_attention_mask": (
        _TENSOR,
        "[batch, past + target], 1 for tokens that are there; all by default.",
    ),
    "decoder_inputs_embeds": (
        _TENSOR,
        "[batch, target, width] instead of decoder_input_ids; scaled already.",
    ),
    "head_mask": (Any, "[layers, heads], factors of each head's attention weights."),
    "cross_attn_head_mask": (Any, "[layers, heads], the same for cross-attention."),
    "past_key_values": (
        Any,
        "output of an earlier call, or a cache of transformers, for the tokens before these.",
    ),
    "labels": (
        _TENSOR,
        "int64 [batch, tokens], -100 where nothing is to be predicted; of a classifier [batch] or "
        "[batch, labels], see `classification_loss`.",
    ),
    "use_cache": (_FLAG, "return `past_key_values` for a next call."),
    "logits_to_keep": (int, "return the logits of so many last positions; all for 0."),
    "mems": (Any, "refused, as are perm_mask and target_mapping."),
    "perm_mask": (_TENSOR, "refused."),
    "target_mapping": (_TENSOR, "refused."),
    "input_mask": (_TENSOR, "the reverse of attention_mask, 1 for tokens that are not there."),
    "use_mems": (
        _FLAG,
        "also return each layer's input, detached, as `mem_len` and `reuse_len` say; by default as "
        "`use_mems_eval` or, in training, `use_mems_train` says.",
    ),
    "output_attentions": (
        _FLAG,
        "also return attention weights, [batch, heads, tokens, keys] for each layer.",
    ),
    "output_hidden_states": (
        _FLAG,
        "also return the embedded tokens and each layer's output, the last normalized where a norm follows.",
    ),
    "return_dict": (_FLAG, "False for a plain tuple."),
}
_DEFAULTS = {"logits_to_keep": 0}


def declare_forward(summary: str, names: Sequence[str]) -> Callable[..., Any]:
    """Make the `forward` of a class that offers `forward_named`, with transformers' argument order.

    Flags that are None are the configuration's.

    Args:
        summary: first line of its docstring.
        names: its arguments in order, each optional; the last three are `OUTPUT_FLAGS`.

    Returns:
        A method that calls `forward_named` with the arguments given, by name, and returns its output object,
        or a tuple of it where `return_dict` says so.
    """
    parameters = [Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)]
    for name in names:
        kind, default = _ARGUMENTS[name][0], _DEFAULTS.get(name)
        parameters.append(Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind))
    signature = Signature(parameters)

    def forward(self: Any, *args: Any, **kwargs: Any) -> ModelOutput | tuple[Any, ...]:
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}.forward() {error}") from None
        del given["self"]
        return_dict = given.pop("return_dict", None)
        output: ModelOutput | tuple[Any, ...] = as_asked(
            self.forward_named(**given), return_dict, self.config
        )
        return output

    forward.__signature__ = signature  # type: ignore[attr-defined]
    arguments = "\n".join(f"    {name}: {_ARGUMENTS[name][1]}" for name in names)
    forward.__doc__ = (
        f"{summary}\n\nArgs:\n{arguments}\n\nRaises:\n    ValueError: inputs that are missing or do not fit, "
        "or more tokens than there are positions."
    )
    return forward
