"""Label shifting and cross-entropy loss of text decoders."""

import torch
import torch.nn.functional as F
from torch import Tensor


def shift_right(labels: Tensor, pad_token_id: int, start_token_id: int) -> Tensor:
    """Decoder input ids for `labels`: the start token, then all labels but the last; -100 becomes padding.

    Raises:
        ValueError: labels that are not [batch, target].
    """
    _check(labels)
    start = labels.new_full((labels.shape[0], 1), start_token_id)
    shifted = torch.cat([start, labels[:, :-1]], dim=1)
    return shifted.masked_fill(shifted == -100, pad_token_id)


def shift_left(labels: Tensor) -> Tensor:
    """Labels shifted left by one, so that each position has its next token; -100 at the last.

    Raises:
        ValueError: labels that are not [batch, target].
    """
    _check(labels)
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy loss of logits [batch, target, vocabulary], the mean over all labels but -100.

    Raises:
        ValueError: labels that are not [batch, target], or neither token ids of the vocabulary nor -100.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(f"labels {list(labels.shape)} do not fit decoder inputs {list(logits.shape[:2])}")
    real = labels[labels != -100]
    if real.numel() and not 0 <= int(real.min()) <= int(real.max()) < logits.shape[2]:
        raise ValueError(
            f"labels go from {int(real.min())} to {int(real.max())}, and the model knows tokens 0 to "
            f"{logits.shape[2] - 1}; -100 marks positions to leave out"
        )
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())


def _check(labels: Tensor) -> None:
    if labels.dim() != 2:
        raise ValueError(f"labels must be [batch, target], got {list(labels.shape)}")
