"""DistilBERT tokenizer, which is BERT's without token types."""

from ..bert.tokenizer import BertTokenizer


class DistilBertTokenizer(BertTokenizer):
    """BERT tokenizer that returns no token types by default, since DistilBERT has none."""

    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
