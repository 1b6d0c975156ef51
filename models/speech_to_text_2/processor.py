"""Processor of Speech2Text2."""

from ..processors.processor import SpeechProcessor
from ..wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor
from .tokenizer import Speech2Text2Tokenizer


class Speech2Text2Processor(SpeechProcessor):
    """Wav2vec 2.0's feature extractor and Speech2Text2's tokenizer in one, for a model that joins the two."""

    feature_extractor_class = Wav2Vec2FeatureExtractor
    tokenizer_class = Speech2Text2Tokenizer
