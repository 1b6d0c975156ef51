"""Configuration of SEW-D models (arXiv 2109.06870)."""

from typing import Any

from ..core.field_types import Count, Epsilon, Positions, Probability, Signed, Size, Small
from ..core.fields import ABSENT, activation, field, one_of
from ..sew.config import SqueezedConfig

TERMS = ("p2c", "c2p")


def _names(given: Any) -> Any:
    """List of names from a string with "|" between them; anything else is returned as it is."""
    if given is None:
        return []
    if isinstance(given, str):
        return [name.strip() for name in given.split("|") if name.strip()]
    return given


class SEWDConfig(SqueezedConfig):
    """Configuration of a SEW-D model; the defaults are those of transformers.

    A checkpoint may also set fields that transformers reads but does not declare: `max_relative_positions`,
    which replaces max_position_embeddings, and `conv_kernel_size`, which if above 0 adds a convolution in
    parallel to the first layer, with `conv_groups`, `conv_act` and `hidden_dropout_prob`.
    """

    model_type = "sew-d"

    max_position_embeddings: Positions = 512  # distances of this size or more share a relative position
    position_buckets: Signed = 256  # relative positions per direction; 0 or less: one for each distance
    share_att_key: bool = True  # project relative positions with the query and key weights of the tokens
    relative_attention: bool = True
    # Position terms of the attention scores: "p2c" (position to content), "c2p" (content to position).
    pos_att_type: list[str] = field(TERMS, convert=_names, check=one_of(*TERMS))
    norm_rel_ebd: str = "layer_norm"  # or "none": normalization of relative-position embeddings
    feature_layer_norm_eps: Epsilon = 1e-5  # for the frames; layer_norm_eps is for the transformer
    hidden_act = "gelu_python"
    layer_norm_eps = 1e-7
    layerdrop = ABSENT
    # Without defaults, see above.
    max_relative_positions: Signed = ABSENT
    attention_head_size: Size | None = ABSENT
    conv_kernel_size: Count = ABSENT
    conv_groups: Small = ABSENT
    conv_act: str = field(ABSENT, check=activation)
    hidden_dropout_prob: Probability = ABSENT

    @property
    def farthest(self) -> int:
        """Smallest distance that shares its relative position with all greater ones."""
        given = int(getattr(self, "max_relative_positions", -1))
        return self.max_position_embeddings if given < 1 else given

    @property
    def span(self) -> int:
        """Number of relative positions in each direction."""
        return self.position_buckets if self.position_buckets > 0 else self.farthest

    @property
    def normalized_positions(self) -> bool:
        """True where the table of relative-position embeddings has a layer normalization."""
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
