"""The configuration of SEW-D."""

from collections.abc import Sequence
from typing import Any, ClassVar

from ..sew.config import SqueezedConfig

TERMS = ("p2c", "c2p")
_NORMS = ("layer_norm", "none")


class SEWDConfig(SqueezedConfig):
    """Sizes and constants of a SEW-D model; the defaults are transformers'.

    A checkpoint may also set what transformers reads and does not list: `max_relative_positions`, in place of
    max_position_embeddings, and with `conv_kernel_size` above 0, `conv_groups`, `conv_act` and
    `hidden_dropout_prob` a convolution beside the first layer.

    Args:
        max_position_embeddings: the distance from which on all share a relative position.
        position_buckets: relative positions on each side, shared by far distances; 0 or less for one for each
            distance.
        share_att_key: attention uses the projections of its queries and keys for relative positions too.
        relative_attention: whether scores depend on relative positions at all.
        pos_att_type: which of their terms do, of "p2c" (position to content) and "c2p" (content to position).
        norm_rel_ebd: "layer_norm" normalizes the relative positions, "none" does not.
        feature_layer_norm_eps: of the normalization of the frames; `layer_norm_eps` is the transformer's.
        **kwargs: see `SqueezedConfig`.

    Raises:
        ValueError: see `SqueezedConfig`; or an option that is not known or not supported.
    """

    model_type: ClassVar[str] = "sew-d"

    def __init__(
        self,
        *,
        max_position_embeddings: int = 512,
        position_buckets: int = 256,
        share_att_key: bool = True,
        relative_attention: bool = True,
        pos_att_type: Sequence[str] | None = TERMS,
        norm_rel_ebd: str = "layer_norm",
        hidden_act: str = "gelu_python",
        layer_norm_eps: float = 1e-7,
        feature_layer_norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        self.max_position_embeddings = max_position_embeddings
        self.position_buckets = position_buckets
        self.share_att_key = share_att_key
        self.relative_attention = relative_attention
        if isinstance(pos_att_type, str):
            pos_att_type = [term.strip() for term in pos_att_type.split("|") if term.strip()]
        self.pos_att_type = list(pos_att_type or ())
        self.norm_rel_ebd = norm_rel_ebd
        self.feature_layer_norm_eps = feature_layer_norm_eps
        super().__init__(hidden_act=hidden_act, layer_norm_eps=layer_norm_eps, **kwargs)
        if "layerdrop" not in kwargs:
            del self.layerdrop  # the one field of its relatives that it has not

    @property
    def farthest(self) -> int:
        """The distance from which on all share a relative position."""
        given = int(getattr(self, "max_relative_positions", -1))
        return self.max_position_embeddings if given < 1 else given

    @property
    def span(self) -> int:
        """Relative positions on each side."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    @property
    def normalized_positions(self) -> bool:
        """Whether the relative positions are normalized."""
        return "layer_norm" in self._norms

    @property
    def _norms(self) -> list[str]:
        return [part.strip() for part in self.norm_rel_ebd.lower().split("|")]

    def _check(self) -> None:
        super()._check()
        _refuse_unknown("pos_att_type", self.pos_att_type, TERMS)
        _refuse_unknown("norm_rel_ebd", self._norms, _NORMS)
        head = getattr(self, "attention_head_size", None)
        if head is not None and head * self.num_attention_heads != self.hidden_size:
            raise ValueError(
                f"attention_head_size {head} is not supported: {self.num_attention_heads} heads must add up "
                f"to hidden_size {self.hidden_size}; leave it out"
            )
        kernel = getattr(self, "conv_kernel_size", 0)
        if kernel > 0 and kernel % 2 == 0:
            raise ValueError(f"conv_kernel_size {kernel} would change the number of tokens; use an odd one")


def _refuse_unknown(name: str, given: list[str], known: Sequence[str]) -> None:
    for part in given:
        if part not in known:
            raise ValueError(
                f"{name} has {part!r}, which is not supported; use {' or '.join(map(repr, known))}"
            )
