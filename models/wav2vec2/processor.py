"""Processor of wav2vec 2.0 and related models."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Wav2Vec2FeatureExtractor


class Wav2Vec2Processor(SpeechProcessor):
    """Wav2vec 2.0's feature extractor and the checkpoint's tokenizer in one, for CTC and other tasks."""

    feature_extractor_class = Wav2Vec2FeatureExtractor
