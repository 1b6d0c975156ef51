"""The processor of wav2vec 2.0 and its relatives."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Wav2Vec2FeatureExtractor


class Wav2Vec2Processor(SpeechProcessor):
    """Feature extractor and tokenizer of wav2vec 2.0 and its relatives.

    The checkpoint's files name the tokenizer's class: for CTC `Wav2Vec2CTCTokenizer`.
    """

    feature_extractor_class = Wav2Vec2FeatureExtractor
