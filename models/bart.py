"""BART's decoder (arXiv 1910.13461): learned positions, layers that normalise what they put out."""

from typing import ClassVar

from torch import Tensor, nn

from .bart_config import BartConfig, BartLikeConfig
from .configuration import PretrainedConfig
from .fairseq_decoder import FairseqCausalLM, FairseqDecoder
from .text_decoder import PositionRows


class LearnedPositions(nn.Embedding):
    """A position table whose first two rows nothing reads.

    Args:
        limit: tokens of the longest sequence.
        width: of the hidden states.
    """

    def __init__(self, limit: int, width: int) -> None:
        super().__init__(limit + 2, width)

    @property
    def table(self) -> Tensor:
        """[limit + 2, width]."""
        return self.weight

    @property
    def rows(self) -> PositionRows:
        """See `TextDecoder.positions`."""
        return PositionRows(first=2, limit=self.num_embeddings - 2)


class BartDecoder(FairseqDecoder):
    """What is embedded is normalised; so is what every part of a layer puts out, and nothing after that."""

    def __init__(self, config: BartLikeConfig, *, norm_first: bool = False) -> None:
        positions = LearnedPositions(config.max_position_embeddings, config.d_model)
        super().__init__(config, positions, norm_first=norm_first, embedding_norm=True)


class BartForCausalLM(FairseqCausalLM):
    """BART's decoder with its map to the vocabulary; its own checkpoints load, and those of all of BART.

    Args:
        config: sizes and constants; weights are fresh.
    """

    config_class: ClassVar[type[PretrainedConfig]] = BartConfig

    def __init__(self, config: BartConfig) -> None:
        super().__init__(config, BartDecoder(config))
