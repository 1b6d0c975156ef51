"""DistilBERT's tokenizer, which is BERT's."""

from ..bert.tokenizer import BertTokenizer


class DistilBertTokenizer(BertTokenizer):
    """BERT's; the model knows no token types, so none are returned unless asked for."""

    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
