"""RoBERTa's configuration."""

from ..bert.config import BertLikeConfig


class RobertaConfig(BertLikeConfig):
    """Sizes and constants of a RoBERTa model; the defaults are transformers'.

    Positions are counted from pad_token_id + 1 on, so a text has that many fewer than
    max_position_embeddings.
    """

    model_type = "roberta"

    vocab_size = 50265
    pad_token_id = 1
    bos_token_id = 0
    eos_token_id = 2

    def _complete(self) -> None:
        super()._complete()
        if not isinstance(self.pad_token_id, int):
            raise ValueError(
                f"pad_token_id is {self.pad_token_id!r}; positions are counted from it: give a whole number"
            )
