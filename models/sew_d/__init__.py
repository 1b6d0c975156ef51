"""SEW-D (arXiv 2109.06870): SEW with DeBERTa's disentangled attention."""

from ..family import Family

FAMILY = Family(
    "sew-d",
    "config.SEWDConfig",
    speech_encoder="model.SEWDModel",
    ctc="model.SEWDForCTC",
    audio_classification="model.SEWDForSequenceClassification",
    feature_extractor="wav2vec2/feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="wav2vec2/tokenizer.Wav2Vec2CTCTokenizer",
    processor="wav2vec2/processor.Wav2Vec2Processor",
)
