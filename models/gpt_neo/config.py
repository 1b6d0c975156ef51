"""GPT-Neo's configuration."""

from collections.abc import Sequence
from typing import Any, ClassVar

from ...kernels.linear.activation import ACTIVATIONS
from ..core.config import PretrainedConfig

_KINDS = ("global", "local")


class GPTNeoConfig(PretrainedConfig):
    """Sizes and constants of a GPT-Neo model; the defaults are EleutherAI/gpt-neo-1.3B's.

    Args:
        vocab_size: tokens.
        max_position_embeddings: rows of the position table, so tokens of the longest sequence.
        hidden_size: width of the hidden states.
        num_layers: transformer layers.
        attention_types: for parts of the stack which attentions take turns and how often, such as
            [[["global", "local"], 12]], the default; as many altogether as there are layers.
        num_heads: heads; they divide hidden_size.
        intermediate_size: width between a layer's two linear maps; 4 * hidden_size where it is None.
        window_size: keys that a token sees in a "local" layer, its own counted.
        activation_function: one of `kernels.linear.ACTIVATIONS`.
        resid_dropout, embed_dropout, attention_dropout: in training.
        classifier_dropout: of transformers' GPTNeoForTokenClassification; kept.
        layer_norm_epsilon: added to the variance by every normalization.
        initializer_range: standard deviation of fresh weights.
        use_cache: whether forward returns keys and values.
        tie_word_embeddings: of its language model; kept.

    Raises:
        ValueError: heads that do not divide hidden_size, attention types that are unknown or not as many as
            layers, a window of no keys, or an unknown activation.
    """

    model_type: ClassVar[str] = "gpt_neo"
    attribute_map: ClassVar[dict[str, str]] = {
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        # The name under which fresh weights and new rows of the vocabulary look for it.
        "init_std": "initializer_range",
    }

    def __init__(
        self,
        vocab_size: int = 50257,
        max_position_embeddings: int = 2048,
        hidden_size: int = 2048,
        num_layers: int = 24,
        attention_types: Sequence[Any] | None = None,
        num_heads: int = 16,
        intermediate_size: int | None = None,
        window_size: int = 256,
        activation_function: str = "gelu_new",
        resid_dropout: float = 0.0,
        embed_dropout: float = 0.0,
        attention_dropout: float = 0.0,
        classifier_dropout: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        initializer_range: float = 0.02,
        use_cache: bool = True,
        bos_token_id: int | None = 50256,
        eos_token_id: int | list[int] | None = 50256,
        pad_token_id: int | None = None,
        tie_word_embeddings: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        default: Sequence[Any] = [[["global", "local"], 12]]
        self.attention_types = default if attention_types is None else attention_types
        self.num_heads = num_heads
        self.intermediate_size = intermediate_size
        self.window_size = window_size
        self.activation_function = activation_function
        self.resid_dropout = resid_dropout
        self.embed_dropout = embed_dropout
        self.attention_dropout = attention_dropout
        self.classifier_dropout = classifier_dropout
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pad_token_id = pad_token_id
        self.tie_word_embeddings = tie_word_embeddings
        kwargs.pop("attention_layers", None)  # written beside the types that it follows from
        super().__init__(**kwargs)  # last, so that a field given by its other name is not overwritten
        self.attention_layers = [
            kind for kinds, times in self.attention_types for _ in range(times) for kind in kinds
        ]
        self._check()

    def _check(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide hidden_size {self.hidden_size}")
        if len(self.attention_layers) != self.num_layers:
            raise ValueError(
                f"attention_types {self.attention_types} are of {len(self.attention_layers)} layers, and "
                f"num_layers is {self.num_layers}; make them as many"
            )
        unknown = sorted({str(kind) for kind in self.attention_layers} - set(_KINDS))
        if unknown:
            raise ValueError(
                f"attention_types has {', '.join(map(repr, unknown))}; a layer is 'global' or 'local'"
            )
        if self.window_size < 1:
            raise ValueError(f"window_size is the keys that a token sees, at least 1; got {self.window_size}")
        if self.activation_function not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ValueError(
                f"activation_function {self.activation_function!r} is not supported; one of {known}"
            )
