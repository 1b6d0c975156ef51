"""BART tokenizer, which is RoBERTa's."""

from ..roberta.tokenizer import RobertaTokenizer


class BartTokenizer(RobertaTokenizer):
    """Byte-level BPE tokenizer of BART; identical to `RobertaTokenizer`."""
