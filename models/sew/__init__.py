"""SEW (arXiv 2109.06870): wav2vec 2.0 with a transformer that runs at a reduced frame rate."""

from ..family import Family

FAMILY = Family(
    "sew",
    "config.SEWConfig",
    speech_encoder="model.SEWModel",
    ctc="model.SEWForCTC",
    audio_classification="model.SEWForSequenceClassification",
    feature_extractor="wav2vec2/feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="wav2vec2/tokenizer.Wav2Vec2CTCTokenizer",
    processor="wav2vec2/processor.Wav2Vec2Processor",
)
