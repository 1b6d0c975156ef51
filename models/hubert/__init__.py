"""HuBERT (arXiv 2106.07447): wav2vec 2.0's architecture with two more normalization options."""

from ..family import Family

FAMILY = Family(
    "hubert",
    "config.HubertConfig",
    speech_encoder="model.HubertModel",
    ctc="model.HubertForCTC",
    audio_classification="model.HubertForSequenceClassification",
    feature_extractor="wav2vec2/feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="wav2vec2/tokenizer.Wav2Vec2CTCTokenizer",
    processor="wav2vec2/processor.Wav2Vec2Processor",
)
