"""DistilBERT's tokenizer."""

from ..bert.tokenizer import BertTokenizer


class DistilBertTokenizer(BertTokenizer):
    """BERT's tokenizer, without token types by default, since the model reads none."""

    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")
