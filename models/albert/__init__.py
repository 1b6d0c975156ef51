"""ALBERT (arXiv 1909.11942): layers of BERT's kind that share their weights."""

from ..family import Family

FAMILY = Family(
    "albert",
    "config.AlbertConfig",
    sequence_classification="model.AlbertForSequenceClassification",
    tokenizer="tokenizer.AlbertTokenizer",
    exports=("model.AlbertModel",),
)
