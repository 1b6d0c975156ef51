"""BART's tokenizer."""

from ..roberta.tokenizer import RobertaTokenizer


class BartTokenizer(RobertaTokenizer):
    """RoBERTa's tokenizer under BART's name; arguments as there."""
