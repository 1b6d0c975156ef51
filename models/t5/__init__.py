"""T5 (arXiv 1910.10683): text encoder-decoder, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "t5",
    "config.T5Config",
    sequence_classification="model.T5ForSequenceClassification",
    tokenizer="tokenizer.T5Tokenizer",
    exports=("model.T5Model",),
)
