"""Classification: the loss, and what of a packed sequence a classifier reads."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels.runtime.packing import positions_within


def classification_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """The loss of a batch, as transformers 5's classifiers have it.

    Where the configuration has no `problem_type`, the first call settles it and writes it there: one label is
    a number ("regression", mean squared error), whole numbers are classes ("single_label_classification",
    cross entropy, -100 is left out), others are a number a label ("multi_label_classification", binary
    cross entropy).

    Args:
        logits: [batch, labels].
        labels: [batch] (or [batch, 1]) for classes and for one number; else [batch, labels].
        config: with `num_labels` and `problem_type`.

    Raises:
        ValueError: labels of another shape, or classes that there are not.
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
    """What kind of problem labels are of, where the configuration does not say."""
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def labels_of(config: Any) -> int:
    """How many logits a classifier has.

    Raises:
        ValueError: none.
    """
    if config.num_labels < 1:
        raise ValueError("num_labels is 0, and a classifier needs at least one label; set it or id2label")
    return int(config.num_labels)


def first_rows(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Each sequence's first row: [tokens, width] to [sequences, width]."""
    return hidden[cu_seqlens[:-1].long()]


def last_rows(hidden: Tensor, cu_seqlens: Tensor, counted: Tensor | None = None) -> Tensor:
    """Each sequence's last row, see `last_places`: [tokens, width] to [sequences, width]."""
    return hidden[last_places(cu_seqlens, counted)]


def last_places(cu_seqlens: Tensor, counted: Tensor | None = None) -> Tensor:
    """Where each sequence's last row lies: int64 [sequences].

    Args:
        cu_seqlens: int32 [sequences + 1].
        counted: bool [tokens], rows that can be the last (those whose token is not the padding token). A
            sequence without any gives its first row, as in transformers. All by default.
    """
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    if counted is None:
        return ends - 1
    tokens = len(counted)
    places = torch.where(counted, positions_within(cu_seqlens, tokens), 0)
    owners = torch.repeat_interleave(
        torch.arange(len(starts), device=counted.device), ends - starts, output_size=tokens
    )
    return starts + torch.zeros_like(starts).scatter_reduce_(0, owners, places, "amax")


def one_row_each(cu_seqlens: Tensor) -> Tensor:
    """cu_seqlens of what has one row a sequence, such as logits, where `cu_seqlens` tells the sequences."""
    return torch.arange(cu_seqlens.numel(), dtype=torch.int32, device=cu_seqlens.device)


def first_of_padded(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Each row's first token that is there: [batch, tokens, width] to [batch, width].

    Args:
        hidden: padded on either side.
        attention_mask: [batch, tokens or more], of which the last count; all tokens by default.
    """
    if attention_mask is None:
        return hidden[:, 0]
    first = attention_mask[:, -hidden.shape[1] :].to(hidden.device).bool().int().argmax(1)
    return hidden[torch.arange(len(first), device=hidden.device), first]
