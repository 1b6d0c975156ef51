"""SEW-D's configuration."""

from typing import Any

from ..core.fields import ABSENT, field, one_of
from ..sew.config import SqueezedConfig

TERMS = ("p2c", "c2p")


def _names(given: Any) -> list[str]:
    """Names as a list, or one text with "|" between them."""
    if isinstance(given, str):
        return [name.strip() for name in given.split("|") if name.strip()]
    return list(given or ())


class SEWDConfig(SqueezedConfig):
    """Sizes and constants of a SEW-D model; the defaults are transformers'.

    A checkpoint may also set fields that transformers reads and does not list: `max_relative_positions`, in
    place of max_position_embeddings, and with `conv_kernel_size` above 0, `conv_groups`, `conv_act` and
    `hidden_dropout_prob` a convolution beside the first layer.
    """

    model_type = "sew-d"

    max_position_embeddings: int = 512  # distances from here on share a relative position
    position_buckets: int = 256  # relative positions on each side; 0 or less: one for each distance
    share_att_key: bool = True  # project relative positions with the weights of queries and keys
    relative_attention: bool = True
    # Terms of the scores: "p2c" (position to content), "c2p" (content to position).
    pos_att_type: list[str] = field(TERMS, convert=_names, check=one_of(*TERMS))
    norm_rel_ebd: str = "layer_norm"  # or "none": of the relative positions
    feature_layer_norm_eps: float = 1e-5  # of the frames; layer_norm_eps is the transformer's
    hidden_act = "gelu_python"
    layer_norm_eps = 1e-7
    layerdrop = ABSENT

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
        """True where the relative positions are normalized."""
        return "layer_norm" in self._norms

    @property
    def _norms(self) -> list[str]:
        return [part.strip() for part in self.norm_rel_ebd.lower().split("|")]

    def _complete(self) -> None:
        super()._complete()
        for norm in self._norms:
            if norm not in ("layer_norm", "none"):
                raise ValueError(f"norm_rel_ebd {norm!r} is not supported; use 'layer_norm' or 'none'")
        head = getattr(self, "attention_head_size", None)
        if head is not None and head * self.num_attention_heads != self.hidden_size:
            raise ValueError(
                f"attention_head_size {head} is not supported: {self.num_attention_heads} heads must add up "
                f"to hidden_size {self.hidden_size}; leave it out"
            )
        kernel = getattr(self, "conv_kernel_size", 0)
        if kernel > 0 and kernel % 2 == 0:
            raise ValueError(f"conv_kernel_size {kernel} would change the number of tokens; use an odd one")
