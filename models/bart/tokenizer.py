"""BART's tokenizer."""

from ..roberta.tokenizer import RobertaTokenizer


class BartTokenizer(RobertaTokenizer):
    """RoBERTa's tokenizer by BART's name; arguments as there."""
