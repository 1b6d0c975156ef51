"""Configuration of GPT-Neo."""

from collections.abc import Sequence
from typing import Any

from ..core.config import PretrainedConfig
from ..core.fields import activation, at_least, divides, field


class GPTNeoConfig(PretrainedConfig):
    """Configuration of a GPT-Neo model; the defaults are those of EleutherAI/gpt-neo-1.3B."""

    model_type = "gpt_neo"

    vocab_size: int = 50257
    max_position_embeddings: int = 2048
    hidden_size: int = 2048
    num_layers: int = field(24, alias="num_hidden_layers")
    # [[kinds of consecutive layers, repetitions], ...], the kinds "global" and "local".
    attention_types: Sequence[Any] = field(
        None, convert=lambda given: [[["global", "local"], 12]] if given is None else given
    )
    num_heads: int = field(16, check=divides("hidden_size"), alias="num_attention_heads")
    intermediate_size: int | None = None  # width of the feed-forward block; None: 4 * hidden_size
    window_size: int = field(256, check=at_least(1))  # keys per token in a "local" layer, its own included
    activation_function: str = field("gelu_new", check=activation)
    resid_dropout: float = 0.0
    embed_dropout: float = 0.0
    attention_dropout: float = 0.0
    classifier_dropout: float = 0.1  # for transformers' GPTNeoForTokenClassification
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = field(0.02, alias="init_std")  # standard deviation of initial weights
    use_cache: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | list[int] | None = 50256
    pad_token_id: int | None = None
    tie_word_embeddings: bool = True  # of the language-modeling head, not implemented here

    def _complete(self) -> None:
        # config.json holds attention_layers as well; it is always derived from attention_types.
        self.attention_layers = [
            kind for kinds, times in self.attention_types for _ in range(times) for kind in kinds
        ]
        if len(self.attention_layers) != self.num_layers:
            raise ValueError(
                f"attention_types {self.attention_types} are of {len(self.attention_layers)} layers, and "
                f"num_layers is {self.num_layers}; make them as many"
            )
        for kind in self.attention_layers:
            if kind not in ("global", "local"):
                raise ValueError(f"attention_types has {kind!r}; a layer is 'global' or 'local'")
