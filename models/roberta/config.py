"""RoBERTa's configuration."""

from typing import Any, ClassVar

from ..bert.config import BertLikeConfig


class RobertaConfig(BertLikeConfig):
    """Sizes and constants of a RoBERTa model; the defaults are transformers'.

    Its fields are `BertLikeConfig`'s. Positions are counted from pad_token_id + 1 on, so there are that many
    fewer than max_position_embeddings.

    Raises:
        ValueError: as `BertLikeConfig`, or a pad_token_id that is no whole number.
    """

    model_type: ClassVar[str] = "roberta"

    def __init__(
        self,
        vocab_size: int = 50265,
        *,
        pad_token_id: int | None = 1,
        bos_token_id: int | None = 0,
        eos_token_id: int | list[int] | None = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocab_size,
            pad_token_id=pad_token_id,
            bos_token_id=bos_token_id,
            eos_token_id=eos_token_id,
            **kwargs,
        )

    def _check(self) -> None:
        super()._check()
        if not isinstance(self.pad_token_id, int):
            raise ValueError(
                f"pad_token_id is {self.pad_token_id!r}; positions are counted from it: give a whole number"
            )
