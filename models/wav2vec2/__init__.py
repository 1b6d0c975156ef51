"""wav2vec 2.0 (arXiv 2006.11477): self-supervised encoder of speech waveforms."""

from ..family import Family

FAMILY = Family(
    "wav2vec2",
    "config.Wav2Vec2Config",
    speech_encoder="model.Wav2Vec2Model",
    ctc="ctc.Wav2Vec2ForCTC",
    audio_classification="audio_classification.Wav2Vec2ForSequenceClassification",
    feature_extractor="feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="tokenizer.Wav2Vec2CTCTokenizer",
    processor="processor.Wav2Vec2Processor",
)
