"""Parts of classifiers: the loss, a head, and poolings, which choose the token that represents a text."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels.runtime.packing import cumulative, positions_within
from .layers import apply_linear


def classification_loss(logits: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Classification or regression loss of a batch, as in transformers 5.

    `problem_type` selects it: "regression", mean squared error; "single_label_classification", cross entropy
    without the labels that are -100; "multi_label_classification", binary cross entropy. Where the
    configuration has none, the first call sets it there, by `problem_type`.

    Args:
        logits: [batch, labels].
        labels: [batch] or [batch, 1] for class indices and regression with one label; else as logits.
        config: configuration with `num_labels` and `problem_type`.

    Raises:
        ValueError: labels of another shape, or class indices out of range.
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
    """Default problem type: regression for one label, single-label for integer labels, else multi-label."""
    if num_labels == 1:
        return "regression"
    whole = labels.dtype in (torch.int64, torch.int32)
    return "single_label_classification" if whole else "multi_label_classification"


def labels_of(config: Any) -> int:
    """Number of labels of a classifier, the width of its logits.

    Raises:
        ValueError: a configuration without labels.
    """
    if config.num_labels < 1:
        raise ValueError("num_labels is 0, and a classifier needs at least one label; set it or id2label")
    return int(config.num_labels)


class ClassificationHead(nn.Module):
    """Classification head: two linear layers with tanh between them.

    Args:
        width: width of the hidden states.
        labels: number of logits.
        dropout: dropout probability before each linear layer, in training.
    """

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.dense = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """Logits [texts, labels] of pooled hidden states [texts, width]."""
        pooled = F.dropout(pooled, self.dropout, self.training)
        inner = apply_linear(self.dense, pooled, "tanh")
        inner = F.dropout(inner, self.dropout, self.training)
        return apply_linear(self.out_proj, inner)


# A pooling maps the configuration, token ids [tokens] or None, and cu_seqlens to one token index per text.


def first_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's first token (BERT)."""
    return cu_tokens[:-1].long()


def last_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's last token that is not the padding token, or of its first where all are (GPT-2).

    Without token ids or a `pad_token_id` it is the index of the last token.
    """
    padding = config.pad_token_id
    return last_indices(cu_tokens, None if token_ids is None or padding is None else token_ids != padding)


def last_end_token(config: Any, token_ids: Tensor | None, cu_tokens: Tensor) -> Tensor:
    """Index of each text's last end token (BART, T5).

    Raises:
        ValueError: (on the CPU) a text without an end token, or a configuration without `eos_token_id`.
    """
    assert token_ids is not None
    ends = end_tokens(config, token_ids)
    if ends.device.type == "cpu":  # on a GPU the check would wait for it
        counts = torch.cat([ends.new_zeros(1, dtype=torch.int64), ends.cumsum(0)])[cu_tokens.long()].diff()
        if not bool((counts > 0).all()):
            text = int((counts == 0).nonzero()[0])
            raise no_end_token(config, f"text {text} of the batch")
    return last_indices(cu_tokens, ends)


def no_end_token(config: Any, text: str) -> ValueError:
    """Error for a text without an end token."""
    return ValueError(
        f"{text} has no end token ({config.eos_token_id}), which is the token that is classified; put one "
        "behind it, as the tokenizer does"
    )


def end_tokens(config: Any, token_ids: Tensor) -> Tensor:
    """Mask of end tokens, bool in the shape of the token ids.

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
    """Index of each packed sequence's last token, or last counted token: int64 [sequences].

    Args:
        cu_seqlens: int32 [sequences + 1].
        counted: bool [tokens], True for tokens that can be the last; all by default. A sequence without any
            gives its first token, as in transformers.
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
    """cu_seqlens of a packed batch with one row per sequence, such as logits."""
    return cumulative([1] * (cu_seqlens.numel() - 1), cu_seqlens.device)


def first_of_padded(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Hidden state of each row's first real token: [batch, tokens, width] to [batch, width].

    Args:
        hidden: hidden states, padded on either side.
        attention_mask: [batch, tokens or more], 1 for real tokens; only the last columns are used, one per
            token of `hidden`. All tokens are real by default.
    """
    if attention_mask is None:
        return hidden[:, 0]
    first = attention_mask[:, -hidden.shape[1] :].to(hidden.device).bool().int().argmax(1)
    return hidden[torch.arange(len(first), device=hidden.device), first]
