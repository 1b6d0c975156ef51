"""XLNet (arXiv 1906.08237): text encoder with relative positions, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "xlnet",
    "config.XLNetConfig",
    sequence_classification="model.XLNetForSequenceClassification",
    tokenizer="tokenizer.XLNetTokenizer",
    exports=("model.XLNetModel",),
)
