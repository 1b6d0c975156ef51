"""BART's tokenizer."""

from ..roberta.tokenizer import RobertaTokenizer


class BartTokenizer(RobertaTokenizer):
    """BART's, which is RoBERTa's."""
