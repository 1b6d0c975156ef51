"""ALBERT (arXiv 1909.11942): BERT with weights shared between layers."""

from ..family import Family

FAMILY = Family(
    "albert",
    "config.AlbertConfig",
    sequence_classification="model.AlbertForSequenceClassification",
    tokenizer="tokenizer.AlbertTokenizer",
    exports=("model.AlbertModel",),
)
