"""Token embedding of a model, resizing of its vocabulary, and parameter counts."""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """Mixin that gives access to a model's token embedding, its own or a submodel's."""

    embedding_name: ClassVar[str] = "embed_tokens"  # attribute name, or a dotted path

    def get_input_embeddings(self) -> nn.Embedding:
        """Token-embedding module of the model."""
        return cast(nn.Embedding, self.get_submodule(self.embedding_name))

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding; `tie_weights` then ties the language-modeling head to it."""
        owner, _, name = self.embedding_name.rpartition(".")
        setattr(self.get_submodule(owner), name, value)


class ParametersMixin(TokenEmbedding):
    """Mixin that counts parameters and resizes the vocabulary, with transformers' names and arguments.

    A model with a language-modeling head offers `get_output_embeddings` and its setter.
    """

    config: Any

    def get_output_embeddings(self) -> nn.Linear | None:
        """Language-modeling head of the model; None without one."""
        return None

    def tie_weights(self) -> None:
        """Tie the language-modeling head to the token embedding, where that is configured."""
        head = self.get_output_embeddings()
        if head is not None and self.config.tie_word_embeddings:
            head.weight = self.get_input_embeddings().weight

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the token embedding and the language-modeling head; tokens that stay keep their weights.

        Args:
            new_num_tokens: new vocabulary size; the present one by default.
            pad_to_multiple_of: number to a multiple of which the size is rounded up.
            mean_resizing: new embeddings are the mean of the old ones (transformers draws them from a normal
                distribution around it, with 1e-9 of their covariance); else random, normal with `init_std`.

        Returns:
            The resized token-embedding module.

        Raises:
            ValueError: fewer than one token, or too few for the padding token.
        """
        tokens = self.get_input_embeddings()
        if new_num_tokens is None and pad_to_multiple_of is None:
            return tokens
        count = tokens.weight.shape[0] if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            count = -(-count // pad_to_multiple_of) * pad_to_multiple_of
        least = 1 + (-1 if tokens.padding_idx is None else tokens.padding_idx)
        if count < max(least, 1):
            raise ValueError(
                f"{count} tokens cannot be: the padding token is number {tokens.padding_idx}; "
                f"give new_num_tokens of at least {max(least, 1)}"
            )
        std = None if mean_resizing else float(self.config.init_std)
        head = self.get_output_embeddings()
        tied = head is not None and head.weight is tokens.weight
        _resize(tokens.weight, count, std)
        tokens.num_embeddings = count
        if head is not None:
            if not tied:
                _resize(head.weight, count, std)
            if head.bias is not None:
                _resize(head.bias, count, std)
            head.out_features = count
        self.config.vocab_size = count
        return tokens

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Number of elements of all parameters, shared ones counted once.

        Args:
            only_trainable: leave out parameters without a gradient.
            exclude_embeddings: leave out the weights of all embedding modules.
        """
        left_out = {
            f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.Embedding)
        }
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if (parameter.requires_grad or not only_trainable)
            and not (exclude_embeddings and name in left_out)
        )


def _resize(parameter: Tensor, size: int, std: float | None) -> None:
    """Cut a parameter to its first `size` rows, or add rows: the mean row, or random normal with `std`."""
    old = parameter.data
    added = old.new_empty(max(size - old.shape[0], 0), *old.shape[1:])
    if std is None:
        added[:] = old.float().mean(0).to(old.dtype)
    else:
        added.normal_(std=std)
    # The parameter stays the same object: ties and an optimizer's state hold.
    parameter.data = torch.cat([old[:size], added])
    parameter.grad = None
