"""Configuration of RoBERTa."""

from ..bert.config import BertLikeConfig


class RobertaConfig(BertLikeConfig):
    """Configuration of a RoBERTa model; the defaults are those of transformers.

    Positions start at pad_token_id + 1: a text has at most max_position_embeddings - pad_token_id - 1 tokens.
    """

    model_type = "roberta"

    vocab_size = 50265
    pad_token_id = 1
    bos_token_id = 0
    eos_token_id = 2

    def _complete(self) -> None:
        super()._complete()
        if self.pad_token_id is None or not 0 <= self.pad_token_id < self.max_position_embeddings - 1:
            raise ValueError(
                f"pad_token_id is {self.pad_token_id}; positions are counted from it: give a whole number "
                f"from 0 on, and below max_position_embeddings {self.max_position_embeddings} - 1"
            )
