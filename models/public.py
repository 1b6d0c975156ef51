"""The public names of this package, and where each lies; no torch here, they are imported when first used."""

from typing import TYPE_CHECKING

HOMES = {
    "AutoConfig": "auto",
    "AutoFeatureExtractor": "auto",
    "AutoModelForCTC": "auto",
    "AutoModelForSpeechSeq2Seq": "auto",
    "AutoProcessor": "auto",
    "AutoTokenizer": "auto",
    "BartConfig": "bart_config",
    "BartForCausalLM": "bart",
    "BartTokenizer": "roberta_tokenization",
    "BertConfig": "bert_config",
    "BertLMHeadModel": "bert",
    "BertModel": "bert",
    "BertTokenizer": "bert_tokenization",
    "GPT2Config": "gpt2_config",
    "GPT2LMHeadModel": "gpt2",
    "GPT2Model": "gpt2",
    "GPT2Tokenizer": "gpt2_tokenization",
    "GenerationConfig": "generation_config",
    "HubertConfig": "hubert",
    "HubertForCTC": "ctc",
    "HubertModel": "hubert",
    "MBart50Tokenizer": "mbart_tokenization",
    "MBartConfig": "mbart_config",
    "MBartForCausalLM": "mbart",
    "MBartTokenizer": "mbart_tokenization",
    "RobertaConfig": "roberta_config",
    "RobertaForCausalLM": "roberta",
    "RobertaModel": "roberta",
    "RobertaTokenizer": "roberta_tokenization",
    "SEWConfig": "sew",
    "SEWDConfig": "sew_d",
    "SEWDForCTC": "ctc",
    "SEWDModel": "sew_d",
    "SEWForCTC": "ctc",
    "SEWModel": "sew",
    "Speech2Text2Config": "speech_to_text_2_config",
    "Speech2Text2ForCausalLM": "speech_to_text_2",
    "Speech2Text2Processor": "wav2vec2_processing",
    "Speech2Text2Tokenizer": "speech_to_text_2_tokenization",
    "Speech2TextConfig": "speech_to_text",
    "Speech2TextFeatureExtractor": "speech_to_text_processing",
    "Speech2TextForConditionalGeneration": "speech_to_text",
    "Speech2TextModel": "speech_to_text",
    "Speech2TextProcessor": "speech_to_text_processing",
    "Speech2TextTokenizer": "speech_to_text_tokenization",
    "SpeechEncoderDecoderConfig": "speech_encoder_decoder_config",
    "SpeechEncoderDecoderModel": "speech_encoder_decoder",
    "SpeechProcessor": "processing",
    "UniSpeechConfig": "unispeech",
    "UniSpeechForCTC": "ctc",
    "UniSpeechModel": "unispeech",
    "UniSpeechSatConfig": "unispeech_sat",
    "UniSpeechSatForCTC": "ctc",
    "UniSpeechSatModel": "unispeech_sat",
    "Wav2Vec2CTCTokenizer": "wav2vec2_tokenization",
    "Wav2Vec2Config": "wav2vec2_config",
    "Wav2Vec2FeatureExtractor": "wav2vec2_processing",
    "Wav2Vec2ForCTC": "ctc",
    "Wav2Vec2Model": "wav2vec2",
    "Wav2Vec2Processor": "wav2vec2_processing",
}

if TYPE_CHECKING:
    from .auto import AutoConfig as AutoConfig
    from .auto import AutoFeatureExtractor as AutoFeatureExtractor
    from .auto import AutoModelForCTC as AutoModelForCTC
    from .auto import AutoModelForSpeechSeq2Seq as AutoModelForSpeechSeq2Seq
    from .auto import AutoProcessor as AutoProcessor
    from .auto import AutoTokenizer as AutoTokenizer
    from .bart import BartForCausalLM as BartForCausalLM
    from .bart_config import BartConfig as BartConfig
    from .bert import BertLMHeadModel as BertLMHeadModel
    from .bert import BertModel as BertModel
    from .bert_config import BertConfig as BertConfig
    from .bert_tokenization import BertTokenizer as BertTokenizer
    from .ctc import HubertForCTC as HubertForCTC
    from .ctc import SEWDForCTC as SEWDForCTC
    from .ctc import SEWForCTC as SEWForCTC
    from .ctc import UniSpeechForCTC as UniSpeechForCTC
    from .ctc import UniSpeechSatForCTC as UniSpeechSatForCTC
    from .ctc import Wav2Vec2ForCTC as Wav2Vec2ForCTC
    from .generation_config import GenerationConfig as GenerationConfig
    from .gpt2 import GPT2LMHeadModel as GPT2LMHeadModel
    from .gpt2 import GPT2Model as GPT2Model
    from .gpt2_config import GPT2Config as GPT2Config
    from .gpt2_tokenization import GPT2Tokenizer as GPT2Tokenizer
    from .hubert import HubertConfig as HubertConfig
    from .hubert import HubertModel as HubertModel
    from .mbart import MBartForCausalLM as MBartForCausalLM
    from .mbart_config import MBartConfig as MBartConfig
    from .mbart_tokenization import MBart50Tokenizer as MBart50Tokenizer
    from .mbart_tokenization import MBartTokenizer as MBartTokenizer
    from .processing import SpeechProcessor as SpeechProcessor
    from .roberta import RobertaForCausalLM as RobertaForCausalLM
    from .roberta import RobertaModel as RobertaModel
    from .roberta_config import RobertaConfig as RobertaConfig
    from .roberta_tokenization import BartTokenizer as BartTokenizer
    from .roberta_tokenization import RobertaTokenizer as RobertaTokenizer
    from .sew import SEWConfig as SEWConfig
    from .sew import SEWModel as SEWModel
    from .sew_d import SEWDConfig as SEWDConfig
    from .sew_d import SEWDModel as SEWDModel
    from .speech_encoder_decoder import SpeechEncoderDecoderModel as SpeechEncoderDecoderModel
    from .speech_encoder_decoder_config import SpeechEncoderDecoderConfig as SpeechEncoderDecoderConfig
    from .speech_to_text import Speech2TextConfig as Speech2TextConfig
    from .speech_to_text import Speech2TextForConditionalGeneration as Speech2TextForConditionalGeneration
    from .speech_to_text import Speech2TextModel as Speech2TextModel
    from .speech_to_text_2 import Speech2Text2ForCausalLM as Speech2Text2ForCausalLM
    from .speech_to_text_2_config import Speech2Text2Config as Speech2Text2Config
    from .speech_to_text_2_tokenization import Speech2Text2Tokenizer as Speech2Text2Tokenizer
    from .speech_to_text_processing import Speech2TextFeatureExtractor as Speech2TextFeatureExtractor
    from .speech_to_text_processing import Speech2TextProcessor as Speech2TextProcessor
    from .speech_to_text_tokenization import Speech2TextTokenizer as Speech2TextTokenizer
    from .unispeech import UniSpeechConfig as UniSpeechConfig
    from .unispeech import UniSpeechModel as UniSpeechModel
    from .unispeech_sat import UniSpeechSatConfig as UniSpeechSatConfig
    from .unispeech_sat import UniSpeechSatModel as UniSpeechSatModel
    from .wav2vec2 import Wav2Vec2Model as Wav2Vec2Model
    from .wav2vec2_config import Wav2Vec2Config as Wav2Vec2Config
    from .wav2vec2_processing import Speech2Text2Processor as Speech2Text2Processor
    from .wav2vec2_processing import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from .wav2vec2_processing import Wav2Vec2Processor as Wav2Vec2Processor
    from .wav2vec2_tokenization import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
