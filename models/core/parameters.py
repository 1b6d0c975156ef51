"""Parameters of a model: their number, and a new size of its vocabulary."""

from typing import Any

import torch
from torch import Tensor, nn


class ParametersMixin:
    """Counts parameters and resizes the vocabulary, with transformers' names and arguments.

    A model offers `get_input_embeddings` and, with a map to the vocabulary, `get_output_embeddings`, and
    their setters.
    """

    config: Any

    def get_input_embeddings(self) -> nn.Embedding:
        """Token embedding."""
        raise NotImplementedError(f"{type(self).__name__} reads no tokens")

    def get_output_embeddings(self) -> nn.Linear | None:
        """Map from hidden states to the vocabulary; None without one."""
        return None

    def tie_weights(self) -> None:
        """Tie the output map to the token embedding, where that is configured."""
        head = self.get_output_embeddings()
        if head is not None and self.config.tie_word_embeddings:
            head.weight = self.get_input_embeddings().weight

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change the size of the vocabulary; tokens that stay have the embeddings they had.

        Args:
            new_num_tokens: of the vocabulary; the present size by default.
            pad_to_multiple_of: round the number up.
            mean_resizing: new embeddings are the mean of the old ones (transformers draws them from a normal
                distribution around it, with 1e-9 of their covariance); else fresh, with `init_std`.

        Returns:
            Token embedding.

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
            only_trainable: leave out those without a gradient.
            exclude_embeddings: leave out the token embedding.
        """
        assert isinstance(self, nn.Module)
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
    """Cut a parameter to its first `size` rows, or add rows: their mean, or normal with `std`."""
    old = parameter.data
    added = old.new_empty(max(size - old.shape[0], 0), *old.shape[1:])
    if std is None:
        added[:] = old.float().mean(0).to(old.dtype)
    else:
        added.normal_(std=std)
    # The parameter stays the same object: ties and an optimizer's state hold.
    parameter.data = torch.cat([old[:size], added])
    parameter.grad = None
