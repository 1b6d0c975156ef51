"""Parts of classifiers: the loss, a head, and poolings, which choose the token that stands for a text."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.linear.gemm import linear
from ...kernels.runtime.packing import positions_within


def classification_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Loss of a batch, as in transformers 5.

    Without a `problem_type` in the configuration, the first call sets it there: one label is a number
    ("regression", mean squared error), whole numbers are classes ("single_label_classification", cross
    entropy, -100 is left out), others are a number a label ("multi_label_classification", binary cross
    entropy).

    Args:
        logits: [batch, labels].
        labels: [batch] (or [batch, 1]) for classes and for one number; else [batch, labels].
        config: with `num_labels` and `problem_type`.

    Raises:
        ValueError: labels of another shape, or classes out of range.
    """
    count = config.num_labels
    labels = labels.to(logits.device)
    if config.problem_type is None:
        config.problem_type = problem_type(labels, count)
    kind, rows = config.problem_type, logits.shape[0]
    wanted = [rows] if kind == "single_label_classification" or count == 1 else [rows, count]
    squeezed = kind != "multi_label_classification" and len(wanted) == 1
    fitting = labels.numel() == rows if squeezed else list(labels.shape) == list(logits.shape)
    if not fitting:
        wanted = wanted if squeezed else list(logits.shape)
        raise ValueError(
            f"labels are {list(labels.shape)}, and {kind} of {rows} rows with num_labels {count} "
            f"takes {wanted}"
        )
    if kind == "regression":
        numbers = labels.reshape(logits.shape)
        return F.mse_loss(logits, numbers if numbers.is_floating_point() else numbers.to(logits.dtype))
    if kind == "multi_label_classification":
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    classes = labels.reshape(-1)
    real = classes[classes != -100]
    if classes.is_floating_point() or (
        real.numel() and not 0 <= int(real.min()) <= int(real.max()) < logits.shape[1]
    ):
        given = f"{float(real.min()):g} to {float(real.max()):g}" if real.numel() else str(classes.dtype)
        raise ValueError(
            f"labels are {given}, and single_label_classification takes whole numbers from 0 to "
            f"{logits.shape[1] - 1}; -100 marks what is to be left out. For a number a label set "
            "problem_type to 'regression' or 'multi_label_classification'"
        )
    return F.cross_entropy(logits, classes.long())


def problem_type(labels: Tensor, num_labels: int) -> str:
    """Problem type of labels, where the configuration has none."""
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def labels_of(config: Any) -> int:
    """Number of a classifier's logits.

    Raises:
        ValueError: none.
    """
    if config.num_labels < 1:
        raise ValueError("num_labels is 0, and a classifier needs at least one label; set it or id2label")
    return int(config.num_labels)


class ClassificationHead(nn.Module):
    """Two linear maps with tanh between them.

    Args:
        width: of the hidden states.
        labels: number of logits.
        dropout: before each map, in training.
    """

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """[texts, width] to logits [texts, labels]."""
        pooled = F.dropout(pooled, self.dropout, self.training)
        inner = linear(pooled, self.dense.weight, self.dense.bias, activation="tanh")
        inner = F.dropout(inner, self.dropout, self.training)
        return linear(inner, self.out_proj.weight, self.out_proj.bias)


# Poolings map the configuration, token ids [tokens] or None, and cu_seqlens to one token index a text.


def first_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's first token (BERT)."""
    return cu_tokens[:-1].long()


def last_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's last token that is not the padding token, or of its first where all are (GPT-2).

    Of its last token without token ids or a `pad_token_id`.
    """
    padding = config.pad_token_id
    return last_indices(cu_tokens, None if token_ids is None or padding is None else token_ids != padding)


def last_end_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's last end token (BART, T5).

    Raises:
        ValueError: a text without one, or a configuration that names none.
    """
    assert token_ids is not None
    ends = end_tokens(config, token_ids)
    counts = torch.cat([ends.new_zeros(1, dtype=torch.int64), ends.cumsum(0)])[cu_tokens.long()].diff()
    if not bool((counts > 0).all()):
        text = int((counts == 0).nonzero()[0])
        raise ValueError(
            f"text {text} of the batch has no end token ({config.eos_token_id}), which is the token that is "
            "classified; put one behind it, as the tokenizer does"
        )
    return last_indices(cu_tokens, ends)


def end_tokens(config: Any, token_ids: Tensor) -> Tensor:
    """True for end tokens, in the shape of the token ids.

    Raises:
        ValueError: no `eos_token_id` in the configuration.
    """
    ends = config.eos_token_id
    if ends is None:
        raise ValueError(
            "eos_token_id is None in the configuration, and the end token is what is classified; set it"
        )
    first, *others = [ends] if isinstance(ends, int) else ends
    found = token_ids == first
    for other in others:
        found |= token_ids == other
    return found


def last_indices(cu_seqlens: Tensor, counted: Tensor | None = None) -> Tensor:
    """Index of each sequence's last token: int64 [sequences].

    Args:
        cu_seqlens: int32 [sequences + 1].
        counted: bool [tokens], tokens that can be the last. A sequence without any gives its first token, as
            in transformers. All by default.
    """
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    if counted is None:
        return ends - 1
    tokens = len(counted)
    positions = torch.where(counted, positions_within(cu_seqlens, tokens), 0)
    owners = torch.repeat_interleave(
        torch.arange(len(starts), device=counted.device), ends - starts, output_size=tokens
    )
    return starts + torch.zeros_like(starts).scatter_reduce_(0, owners, positions, "amax")


def one_each(cu_seqlens: Tensor) -> Tensor:
    """cu_seqlens of one row a sequence, such as logits."""
    return torch.arange(cu_seqlens.numel(), dtype=torch.int32, device=cu_seqlens.device)


def first_of_padded(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """First token that is there of each row: [batch, tokens, width] to [batch, width].

    Args:
        hidden: padded on either side.
        attention_mask: [batch, tokens or more], of which the last count; all tokens by default.
    """
    if attention_mask is None:
        return hidden[:, 0]
    first = attention_mask[:, -hidden.shape[1] :].to(hidden.device).bool().int().argmax(1)
    return hidden[torch.arange(len(first), device=hidden.device), first]
