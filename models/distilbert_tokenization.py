"""DistilBERT's tokenizer, which is BERT's."""

from typing import ClassVar

from .bert_tokenization import BertTokenizer


class DistilBertTokenizer(BertTokenizer):
    """BERT's; the model knows no token types, so none are returned unless asked for."""

    model_input_names: ClassVar[tuple[str, ...]] = ("input_ids", "attention_mask")
