"""DistilBERT (arXiv 1910.01108): text encoder, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "distilbert",
    "config.DistilBertConfig",
    sequence_classification="model.DistilBertForSequenceClassification",
    tokenizer="tokenizer.DistilBertTokenizer",
    exports=("model.DistilBertModel",),
)
