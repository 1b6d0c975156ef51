"""Configuration of GPT-Neo."""

from collections.abc import Sequence
from typing import Any

from ..core.config import PretrainedConfig
from ..core.field_types import (
    MAX_LAYERS,
    Deviation,
    Epsilon,
    Layers,
    Positions,
    Probability,
    Size,
    TokenId,
    shown,
)
from ..core.fields import activation, divides, field


class GPTNeoConfig(PretrainedConfig):
    """Configuration of a GPT-Neo model; the defaults are those of EleutherAI/gpt-neo-1.3B."""

    model_type = "gpt_neo"

    vocab_size: Size = 50257
    max_position_embeddings: Positions = 2048
    hidden_size: Size = 2048
    num_layers: Layers = field(24, alias="num_hidden_layers")
    # [[kinds of consecutive layers, repetitions], ...], the kinds "global" and "local".
    attention_types: Sequence[Any] = field(
        None, convert=lambda given: [[["global", "local"], 12]] if given is None else given
    )
    num_heads: Size = field(16, check=divides("hidden_size"), alias="num_attention_heads")
    intermediate_size: Size | None = None  # width of the feed-forward block; None: 4 * hidden_size
    window_size: Size = 256  # keys per token in a "local" layer, its own included
    activation_function: str = field("gelu_new", check=activation)
    resid_dropout: Probability = 0.0
    embed_dropout: Probability = 0.0
    attention_dropout: Probability = 0.0
    classifier_dropout: Probability = 0.1  # for transformers' GPTNeoForTokenClassification
    layer_norm_epsilon: Epsilon = 1e-5
    initializer_range: Deviation = field(0.02, alias="init_std")  # standard deviation of initial weights
    use_cache: bool = True
    bos_token_id: TokenId | None = 50256
    eos_token_id: TokenId | list[TokenId] | None = 50256
    pad_token_id: TokenId | None = None
    tie_word_embeddings: bool = True  # of the language-modeling head, not implemented here

    def _complete(self) -> None:
        for part in self.attention_types:
            if not (isinstance(part, list | tuple) and len(part) == 2 and _is_run(*part)):
                raise ValueError(
                    f"attention_types must be a list of pairs, kinds of consecutive layers and repetitions, "
                    f"such as [[['global', 'local'], 12]], got {shown(self.attention_types)}"
                )
        # config.json holds attention_layers as well; it is always derived from attention_types.
        self.attention_layers = [
            kind for kinds, times in self.attention_types for _ in range(times) for kind in kinds
        ]
        if len(self.attention_layers) != self.num_layers:
            raise ValueError(
                f"attention_types {shown(self.attention_types)} are of {len(self.attention_layers)} layers, "
                f"and num_layers is {self.num_layers}; make them as many"
            )
        for kind in self.attention_layers:
            if kind not in ("global", "local"):
                raise ValueError(f"attention_types has {shown(kind)}; a layer is 'global' or 'local'")


def _is_run(kinds: Any, times: Any) -> bool:
    """True for a list of kinds of layers and a number of repetitions that make a bounded number of layers."""
    return isinstance(kinds, list | tuple) and type(times) is int and 0 <= times * len(kinds) <= MAX_LAYERS
