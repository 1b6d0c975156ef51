"""BART (arXiv 1910.13461): text encoder-decoder, its decoder alone, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "bart",
    "config.BartConfig",
    text_decoder="model.BartForCausalLM",
    sequence_classification="model.BartForSequenceClassification",
    tokenizer="tokenizer.BartTokenizer",
    exports=("model.BartModel",),
)
