"""Record of the bits that Tritone's public names give, and a comparison of two such records.

    python record_bits.py OUT.json
    python record_bits.py --compare A.json B.json

Made in the repository's root, on one machine. Of tensors it has a sha256; floats are hexadecimal.
"""

import argparse
import hashlib
import inspect
import json
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import tokenizers
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import tritone

Record = dict[str, Any]
DTYPES = ("float32", "bfloat16")
WORDS = "zero one two three four five six seven eight nine the quick brown fox jumps over lazy dogs and cats"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RATE, SOON = 16_000, 120  # samples a second; seconds that a result may take

# Rows of a name, names of earlier rows whose fields it takes over, and fields. With a "/" they are of models:
# the prefix of a family's classes, a variant, and which of `HEADS` it is made with.
CASES = """
waves vocab_size=32 hidden_size=24 num_hidden_layers=2 num_attention_heads=2 intermediate_size=40 num_labels=4
    conv_dim=[12,16,20] conv_kernel=[12,9,4] conv_stride=[10,8,4] num_conv_pos_embeddings=9
    num_conv_pos_embedding_groups=3 mask_time_length=2 classifier_proj_size=12;
layered waves feat_extract_norm="layer" conv_bias=true num_conv_pos_embeddings=8 use_weighted_layer_sum=true
    mask_feature_prob=0.3 mask_feature_length=3 num_labels=1 hidden_act="relu";
stable layered do_stable_layer_norm=true; many problem_type="multi_label_classification" num_labels=5;
cross is_decoder=true add_cross_attention=true; untied tie_word_embeddings=false;
small vocab_size=61 num_labels=3; placed small max_position_embeddings=40;
bert placed hidden_size=24 num_hidden_layers=2 num_attention_heads=3 intermediate_size=36;
distil placed dim=24 n_layers=2 n_heads=3 hidden_dim=36; albert bert embedding_size=16;
bart placed d_model=24 encoder_layers=2 decoder_layers=2 encoder_attention_heads=2 decoder_attention_heads=3
    encoder_ffn_dim=40 decoder_ffn_dim=36 decoder_start_token_id=2;
speech bart conv_channels=20 max_source_positions=200 max_target_positions=64;
speech2 small d_model=24 decoder_layers=2 decoder_attention_heads=2 decoder_ffn_dim=36;
gpt2 small n_embd=24 n_layer=2 n_head=3 n_positions=40 pad_token_id=0 eos_token_id=2;
neo placed hidden_size=24 num_layers=2 num_heads=3 pad_token_id=0 eos_token_id=2 window_size=3
    attention_types=[[["global","local"],1]];
xlnet small d_model=24 n_layer=2 n_head=3 d_inner=36;
t5 small d_model=24 d_kv=10 d_ff=36 num_layers=2 num_heads=3 decoder_start_token_id=0
    relative_attention_num_buckets=8 relative_attention_max_distance=9;
Wav2Vec2/group/MCS waves; Wav2Vec2/stable/MCS stable;
Wav2Vec2/adapter/MC waves add_adapter=true num_adapter_layers=2 ctc_zero_infinity=true;
Hubert/plain/MCS waves feat_proj_layer_norm=false; Hubert/batch-norm/MCS stable conv_pos_batch_norm=true;
UniSpeech/group/MCS waves many; UniSpeech/stable/MCS stable;
UniSpeechSat/group/MCS waves mask_time_prob=0.0; UniSpeechSat/stable/MCS stable;
SEW/two/MCS waves; SEW/three/MCS layered squeeze_factor=3;
SEWD/buckets/MCS waves position_buckets=4 max_position_embeddings=16;
SEWD/apart/MCS layered position_buckets=-1 max_position_embeddings=6 share_att_key=false conv_kernel_size=3
    pos_att_type=["c2p"] norm_rel_ebd="none"; Speech2Text/tied/MG speech;
Speech2Text/untied/MG speech untied num_conv_layers=3 conv_kernel_sizes=[7,5,3] activation_function="gelu"
    scale_embedding=false input_feat_per_channel=13 input_channels=3 pad_token_id=0 decoder_start_token_id=4;
Bert/encoder/MS bert; Bert/many/MS bert many type_vocab_size=3 hidden_act="relu"; Bert/decoder/MH bert cross;
Bert/alone/H bert untied is_decoder=true; Roberta/alone/L bert untied is_decoder=true;
Roberta/encoder/MS bert type_vocab_size=2; Roberta/decoder/ML bert cross;
Roberta/number/MS bert num_labels=1 pad_token_id=3 type_vocab_size=1;
DistilBert/learned/MS distil; DistilBert/sines/MS distil many sinusoidal_pos_embds=true activation="relu";
Albert/group/MS albert; Albert/groups/MS albert num_hidden_layers=4 num_hidden_groups=2 inner_group_num=2;
Bart/plain/MS bart; Bart/scaled/MS bart many scale_embedding=true activation_function="relu" decoder_layers=3;
Bart/decoder/L bart cross; Bart/alone/L bart untied scale_embedding=true; MBart/alone/L bart untied;
MBart/decoder/L bart cross scale_embedding=true; Speech2Text2/decoder/L speech2 cross;
Speech2Text2/alone/L speech2 untied scale_embedding=false; XLNet/both/MS xlnet;
XLNet/one-way/MS xlnet attn_type="uni" summary_type="first" reuse_len=2 num_labels=1;
XLNet/mean/MS xlnet many summary_type="mean" summary_use_proj=false clamp_len=2 mem_len=3;
GPT2/cross/MH gpt2 untied add_cross_attention=true scale_attn_by_inverse_layer_idx=true n_inner=40;
GPT2/plain/MHS gpt2; GPTNeo/turns/MS neo;
GPTNeo/local/MS neo many attention_types=[[["local"],2]] window_size=2; T5/relu/MS t5;
T5/gated/MS t5 many feed_forward_proj="gated-gelu" num_decoder_layers=3"""
HEADS = {"M": "Model", "C": "ForCTC", "S": "ForSequenceClassification", "L": "ForCausalLM"}
HEADS |= {"H": "LMHeadModel", "G": "ForConditionalGeneration"}
PAIRS = """
Wav2Vec2/group Bert/decoder; Wav2Vec2/stable Bart/decoder; Hubert/plain GPT2/plain; SEWD/buckets Bert/alone;
UniSpeech/stable Roberta/alone; UniSpeechSat/group MBart/alone; SEW/three Speech2Text2/decoder;
Wav2Vec2/adapter GPT2/cross; Speech2Text/tied Bart/alone"""
WAYS = """
greedy; beams num_beams=5; several num_beams=4 num_return_sequences=3 length_penalty=0.6 early_stopping=true;
drawn do_sample=true seed=7 temperature=1.3 top_k=12 top_p=0.9; long min_length=8 num_beams=2;
twice do_sample=true seed=3 num_return_sequences=2 top_k=0; penalty repetition_penalty=1.6 max_new_tokens=7;
n-grams no_repeat_ngram_size=2 num_beams=3 renormalize_logits=true early_stopping="never";
forced forced_bos_token_id=5 forced_eos_token_id=2 min_new_tokens=3 suppress_tokens=[7]
    begin_suppress_tokens=[8] bad_words_ids=[[9],[10,11]]"""
# The name is that of the class, of the folder that `write_vocabularies` writes, and a number.
TOKENIZERS = """
BertTokenizer/words/0; BertTokenizer/words/1 do_lower_case=false padding_side="left"; XLNetTokenizer/pieces/0;
RobertaTokenizer/bytes/0; RobertaTokenizer/bytes/1 add_prefix_space=true truncation_side="left";
DistilBertTokenizer/words/0; GPT2Tokenizer/bytes/0 pad_token="<|endoftext|>" add_bos_token=true;
MBartTokenizer/pieces/0 src_lang="de_DE"; MBart50Tokenizer/pieces/0 src_lang="en_XX" tgt_lang="fr_XX";
AlbertTokenizer/pieces/0; AlbertTokenizer/pieces/1 do_lower_case=false keep_accents=true;
T5Tokenizer/pieces/0 extra_ids=4; BartTokenizer/bytes/0; Speech2TextTokenizer/pieces/0 do_lower_case=true;
Speech2TextTokenizer/pieces/1 lang_codes="mustc" tgt_lang="fr"; Speech2Text2Tokenizer/merged/0;
Wav2Vec2CTCTokenizer/letters/0; Wav2Vec2CTCTokenizer/letters/1 do_lower_case=true word_delimiter_token="Y";
PreTrainedTokenizerFast/library/0 unk_token="[UNK]" pad_token="[PAD]" """
TEXTS = f"""{WORDS}¦¦ two   spaces ¦Zero ONE two, three.¦isn't it ?¦Über die Straße¦今天 seven¦<|endoftext|>
[CLS] x [MASK] <mask> y</s>z<s>¦nine\tcats\nand¦e\u0301 ﬁve¦THE FOX JUMPS OVER¦{WORDS} {WORDS} {WORDS}"""
STRINGS = TEXTS.split("¦")


def table(text: str) -> dict[str, Record]:
    """The fields of each row of a text like `CASES`, by its name."""
    rows: dict[str, Record] = {}
    for name, *words in map(str.split, text.split(";")):
        rows[name] = {}
        for word in words:
            field, equals, value = word.partition("=")
            rows[name] |= {field: json.loads(value)} if equals else rows[field]
    return rows


def bits(value: Any) -> str:
    """A digest of tensors, also in tuples and mappings."""
    if isinstance(value, Tensor):
        plain = value.detach().reshape(-1).view(torch.uint8).numpy()
        content = f"{value.dtype}{list(value.shape)}".encode() + plain.tobytes()
    elif hasattr(value, "items"):
        return bits([*value.items()])
    elif isinstance(value, tuple | list):
        content = "".join(map(bits, value)).encode()
    else:
        content = repr(value).encode()
    return hashlib.sha256(content).hexdigest()


def add_files(record: Record, key: str, folder: Path) -> None:
    """Add the texts of a folder's configurations, and the digests of its other files."""
    for path in filter(Path.is_file, folder.iterdir()):
        text = path.name.endswith("config.json")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        record[f"{key}/{path.name}"] = path.read_text() if text else digest


def filled(model: Any) -> Any:
    """Draw a model's weights in the order of their names, whatever the order in which it registers them."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters(remove_duplicate=False)):
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, gain=1.5)
            else:
                parameter.normal_(std=0.2).add_(1.0 if name.endswith("weight") else 0.0)
        for _, buffer in sorted(item for item in model.named_buffers() if "running" in item[0]):
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def rows_for(model: Any) -> list[dict[str, Tensor]]:
    """Three inputs of a model, without a batch axis, by the arguments that its `forward` takes."""
    names, kind, config = inspect.signature(model.forward).parameters, type(model).__name__, model.config
    reader, draw = getattr(config, "encoder", config), torch.Generator().manual_seed(1)
    tokens = torch.randint(6, config.get_text_config().vocab_size, (3, 2, 11), generator=draw)
    rows = []
    for index, (samples, frames, count) in enumerate(((4100, 60, 11), (2900, 41, 7), (1500, 23, 4))):
        row, ids = {}, tokens[index, 0, :count]
        if hasattr(reader, "conv_stride"):
            row["input_values"] = torch.randn(samples, generator=draw).to(model.dtype)
        elif hasattr(reader, "input_feat_per_channel"):
            width = reader.input_feat_per_channel * reader.input_channels
            row["input_features"] = torch.randn(frames, width, generator=draw).to(model.dtype)
        else:
            ids = row["input_ids"] = torch.cat([ids[1:], torch.tensor([config.eos_token_id or 3])])
            if "token_type_ids" in names:
                row["token_type_ids"] = torch.arange(count) // 3 % getattr(config, "type_vocab_size", 2)
        if "encoder_hidden_states" in names and getattr(config, "add_cross_attention", False):
            states = torch.randn(count + 2, config.hidden_size, generator=draw)
            row["encoder_hidden_states"] = states.to(model.dtype)
        if kind.endswith("Classification"):
            numbers = torch.rand(config.num_labels, generator=draw).to(model.dtype)
            several = config.problem_type == "multi_label_classification"
            row["labels"] = numbers if several else numbers[0] if len(numbers) == 1 else torch.tensor(index)
        elif "decoder_input_ids" in names:
            row["decoder_input_ids"] = tokens[index, 1, :count]
        if "labels" in names:
            row.setdefault("labels", ids[: max(count // 4, 1)] if kind.endswith("CTC") else ids)
        rows.append(row)
    return rows


def together(rows: list[dict[str, Tensor]], model: Any, side: str = "right") -> dict[str, Tensor]:
    """Inputs as one padded batch with its masks."""
    padding = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
    fills = {"labels": -100, "input_ids": padding, "decoder_input_ids": padding}
    batch = {}
    for name in rows[0]:
        parts = [row[name] for row in rows]
        scalars = not parts[0].dim()
        batch[name] = torch.stack(parts) if scalars else pad_sequence(parts, True, fills.get(name, 0), side)
        if name not in ("labels", "token_type_ids"):
            mask = f"{name.partition('_')[0]}_attention_mask".removeprefix("input_")
            ones = [torch.ones(len(part), dtype=torch.int64) for part in parts]
            batch[mask] = pad_sequence(ones, True, 0, side)
    return batch


def record_model(record: Record, key: str, model: Any) -> None:
    """Record outputs padded and alone and with caches, gradients without and with dropout, and `generate`."""
    rows, caches = rows_for(model), "past_key_values" in inspect.signature(model.forward).parameters
    layouts = {"padded": together(rows, model)}
    layouts |= {f"alone-{i}": {name: part[None] for name, part in row.items()} for i, row in enumerate(rows)}
    if type(model).__name__.endswith("Classification"):
        layouts["left"] = together(rows, model, "left")
    with torch.no_grad():
        for layout, batch in layouts.items():
            output = model(**batch, output_hidden_states=True, output_attentions=True)
            record |= {f"{key}/{layout}/{field}": bits(value) for field, value in output.items()}
            unlabeled = {name: part for name, part in batch.items() if name != "labels"}
            output = model(**unlabeled)
            record[f"{key}/{layout}/plain"] = bits(output)
            past = getattr(output, "past_key_values", None)
            if layout.startswith("alone") and past is not None and caches:
                again = model(**unlabeled, past_key_values=past, return_dict=False)
                record[f"{key}/{layout}/again"] = bits(again)
    for mode in ("gradients", "training"):
        model.train(mode == "training")
        torch.manual_seed(3)
        output = model(**layouts["padded"])
        loss = getattr(output, "loss", None)
        loss = output.last_hidden_state.float().square().mean() if loss is None else loss
        loss.backward()
        grads = [(name, parameter.grad) for name, parameter in sorted(model.named_parameters())]
        record[f"{key}/{mode}"] = bits((loss, grads))
        model.zero_grad()
    model.eval()
    if not hasattr(model, "generate"):
        return
    padded = layouts["padded"].items()
    inputs: Record = {name: part for name, part in padded if name.startswith(("input", "att"))}
    record[f"{key}/generate"] = model.generate(**inputs).tolist()
    inputs |= {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 12}
    for way, options in table(WAYS).items():
        output = model.generate(**(inputs | options))
        record[f"{key}/generate/{way}"] = output.sequences.tolist()
        record[f"{key}/generate/{way}/scores"] = bits((output.sequences_scores, output.scores))


def record_models(record: Record, root: Path) -> None:
    """Record every class of `CASES` and `PAIRS`, saved and loaded again, in each dtype."""
    makers: Record = {}
    configs: Record = {}
    for name, fields in table(CASES).items():
        if "/" in name:
            family, variant, heads = name.split("/")
            make = makers[f"{family}/{variant}"] = partial(getattr(tritone, f"{family}Config"), **fields)
            configs |= {f"{family}{HEADS[head]}/{variant}": make() for head in heads}
    ids = {"decoder_start_token_id": 4, "eos_token_id": 2, "pad_token_id": 0}
    for pair in map(str.split, PAIRS.split(";")):
        name = f"SpeechEncoderDecoderModel/{'-'.join(pair).replace('/', '-')}"
        join = tritone.SpeechEncoderDecoderConfig.from_encoder_decoder_configs
        configs[name] = join(*(makers[part]() for part in pair), **ids)
    for key, config in configs.items():
        kind, folder = getattr(tritone, key.partition("/")[0]), root / key
        model = filled(kind(config))
        record[f"{key}/state"] = {one: list(part.shape) for one, part in model.state_dict().items()}
        model.save_pretrained(folder)
        add_files(record, key, folder)
        for dtype in DTYPES:
            record_model(record, f"{key}/{dtype}", kind.from_pretrained(folder, dtype=dtype))


def record_defaults(record: Record, root: Path) -> None:
    """Record where the bits come from, the public names, and what configurations are by default."""
    record["machine"] = [torch.__version__, torch.backends.cpu.get_cpu_capability()]
    record["names"] = sorted(dir(tritone))
    for name in record["names"]:
        if name in ("EngineConfig", "RunnerConfig"):
            continue
        if name.endswith(("Config", "FeatureExtractor")) and not name.startswith(("Auto", "Generation")):
            fields = getattr(tritone, name)().to_dict()
            record[f"{name}/defaults"] = json.dumps(fields, sort_keys=True, default=list)


def recording(seed: int) -> np.ndarray:
    """A waveform of 0.3 to 2.5 s: tones that come and go, in noise."""
    draw = np.random.default_rng(seed)
    time = np.arange(int(draw.uniform(0.3, 2.5) * RATE)) / RATE
    samples = 0.01 * draw.standard_normal(len(time))
    for pitch, beat, phase in draw.uniform((100, 0.5, 0), (3500, 4, 6), (4, 3)):
        there = np.sin(2 * np.pi * beat * time + phase) > 0
        samples += 0.1 * np.sin(2 * np.pi * pitch * time) * there
    return samples.astype(np.float32)


def write_vocabularies(root: Path) -> None:
    """Write a folder for each kind of vocabulary in `TOKENIZERS`, all of the same words."""

    def write(kind: str, tokens: list[str], words: list[list[str]]) -> None:
        merges = dict.fromkeys(("".join(word[:i]), word[i]) for word in words for i in range(1, len(word)))
        end = "" if kind == "bytes" else "@@"
        pieces = [f"{left}{right}{end}".removesuffix("</w>@@") for left, right in merges]
        numbers = {token: number for number, token in enumerate(dict.fromkeys([*tokens, *pieces]))}
        (root / kind).mkdir(parents=True)
        (root / kind / "vocab.json").write_text(json.dumps(numbers))
        (root / kind / "merges.txt").write_text("".join(f"{left} {right}\n" for left, right in merges))
        (root / kind / "vocab.txt").write_text("\n".join(numbers))

    words, special = WORDS.split(), ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    write("bytes", [*special, "<mask>", "<|endoftext|>", *alphabet], [[*"Ġ", *word] for word in words])
    letters = [f"{letter}{end}" for letter in LETTERS for end in ("@@", "")]
    write("merged", [*special, *letters], [[*word[:-1], f"{word[-1]}</w>"] for word in words])
    write("letters", ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS.upper(), "'"], [])
    roles = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    write("words", [*roles, *words, ",", ".", "##s", "##er", *LETTERS], [])
    tritone.BertTokenizer.from_pretrained(root / "words").save_pretrained(root / "library")
    symbols = ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>", *roles[2:4]]
    options: Record = {"vocab_size": 90, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2}
    options |= {"control_symbols": symbols, "user_defined_symbols": ["[MASK]", "(", ")"]}
    lines, model = [*words * 20, *[WORDS] * 20, "Über die Straße, ein Élève."], root / "spiece.model"
    with model.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=file, **options)
    read = sentencepiece.SentencePieceProcessor(model_file=str(model))
    languages = [f"<lang:{code}>" for code in ("pt", "fr", "ru", "nl", "ro", "it", "es", "de")]
    write("pieces", [*special, *languages, *(read.id_to_piece(i) for i in range(len(read)))], [])
    for name in ("sentencepiece.bpe.model", "spiece.model"):
        (root / "pieces" / name).write_bytes(model.read_bytes())


def record_processing(record: Record, root: Path) -> None:
    """Record the ids, pieces and texts of `STRINGS`, saved tokenizers, and the features of recordings."""
    for row, options in table(TOKENIZERS).items():
        name, kind, _ = row.split("/")
        tokenizer = getattr(tritone, name).from_pretrained(root / kind, **options)
        ids = record[f"{row}/ids"] = [tokenizer.encode(text) for text in STRINGS]
        record[f"{row}/pieces"] = [tokenizer.tokenize(text) for text in STRINGS]
        for skip in (False, True):
            record[f"{row}/texts-{skip}"] = tokenizer.batch_decode(ids, skip_special_tokens=skip)
        options = {"return_token_type_ids": True, "return_special_tokens_mask": True, "max_length": 12}
        both = tokenizer(STRINGS, STRINGS[::-1], padding=True, truncation=True, **options)
        record[f"{row}/pairs"], record[f"{row}/vocabulary"] = dict(both), tokenizer.get_vocab()
        tokenizer.save_pretrained(root / row)
        add_files(record, row, root / row)
        again = tritone.AutoTokenizer.from_pretrained(root / row)
        record[f"{row}/again"] = [type(again).__name__, [again.encode(text) for text in STRINGS]]
    waveforms = [recording(seed) for seed in range(4)]
    options = {"sampling_rate": RATE, "return_tensors": "pt"}
    s2t, w2v = tritone.Speech2TextFeatureExtractor, tritone.Wav2Vec2FeatureExtractor
    plain = s2t(do_ceptral_normalize=False), w2v(do_normalize=False, padding_value=0.5)
    for number, extractor in enumerate((s2t(), w2v(), s2t(num_mel_bins=23, normalize_vars=False), *plain)):
        padded = extractor(waveforms, padding=True, pad_to_multiple_of=8, **options)
        alone = [extractor(waveform, **options) for waveform in waveforms]
        record[f"extractor-{number}"] = [bits(padded), bits(alone)]


def said(result: Any) -> Record:
    """The fields of a transcription or a classification."""
    fields: Record = {"finish_reason": str(result.finish_reason), "duration": float(result.duration).hex()}
    fields["error"] = repr(result.error)
    if hasattr(result, "labels"):
        return fields | {"labels": [(label.label, label.score.hex()) for label in result.labels]}
    for name in ("words", "characters"):
        spans = getattr(result, name) or ()
        fields[name] = [(span.text, float(span.start).hex(), float(span.end).hex()) for span in spans]
    score = None if result.score is None else result.score.hex()
    return fields | {"text": result.text, "token_ids": result.token_ids, "score": score}


def record_engines(record: Record, root: Path) -> None:
    """Record what engines on saved models, and on those that come along, say to recordings and texts."""
    s2t, w2v = tritone.Speech2TextFeatureExtractor(), tritone.Wav2Vec2FeatureExtractor()
    rows = "BertTokenizer/words/0", "Wav2Vec2CTCTokenizer/letters/1", "Speech2TextTokenizer/pieces/1"
    bert, ctc, many = (tritone.AutoTokenizer.from_pretrained(root / row) for row in rows)
    engines = {
        "Speech2TextForConditionalGeneration/tied": tritone.Speech2TextProcessor(s2t, many),
        "SpeechEncoderDecoderModel/Wav2Vec2-group-Bert-decoder": tritone.Wav2Vec2Processor(w2v, bert),
        "Wav2Vec2ForCTC/group": tritone.Wav2Vec2Processor(w2v, ctc),
        "SEWForCTC/three": tritone.Wav2Vec2Processor(w2v, ctc),
        "HubertForSequenceClassification/plain": w2v,
        "UniSpeechForSequenceClassification/group": w2v,
        "BertForSequenceClassification/encoder": bert,
        "DistilBertForSequenceClassification/sines": bert,
    }
    once: list[Any] = [(one, {}) for one in (*map(recording, range(12)), np.zeros(100, dtype=np.float32))]
    ways = [options for options in table(WAYS).values() if "num_return_sequences" not in options]
    mixed = [(one, ways[index % len(ways)]) for index, (one, _) in enumerate(once)]
    mixed += [(once[0][0], {"sampling_rate": 8_000}), (once[1][0], {"priority": 1, "stream": False})]
    texts: list[Any] = [(text, {"truncate": index % 2 < 1}) for index, text in enumerate(STRINGS)]
    texts += [(pair, {"truncate": True, "top_k": 1}) for pair in zip(STRINGS, STRINGS[::-1], strict=True)]
    for name, processor in engines.items():
        processor.save_pretrained(root / name)
        add_files(record, f"engine/{name}", root / name)
        asked = mixed if name.startswith("Speech") else texts if processor is bert else once
        asked = [*asked, (once[2][0], {"language": "fr"})] if name.startswith("Speech2Text") else asked
        sizes = {"num_rows": 8} if name.startswith("Speech") else {}
        for dtype in DTYPES:
            with tritone.Engine(root / name, device="cpu", dtype=dtype, **sizes) as engine:
                handles = [engine.submit(source, **options) for source, options in asked]
                results = [handle.outcome(SOON) for handle in handles]
            record |= {f"engine/{name}/{dtype}/{i}": said(result) for i, result in enumerate(results)}
    samples = sorted(path for path in Path("samples/digits").iterdir() if path.suffix in (".wav", ".flac"))
    classifier = min(Path.cwd().glob("**/digit_classifier/config.json")).parent
    for dtype in DTYPES:
        with tritone.Engine("digits", device="cpu", dtype=dtype) as engine:
            for beams in (1, 5):
                results = engine.transcribe(samples, num_beams=beams)
                record[f"digits/{dtype}/{beams}"] = [said(result) for result in results]
        with tritone.Engine(classifier, device="cpu", dtype=dtype) as engine:
            record[f"digit_classifier/{dtype}"] = [said(one) for one in engine.classify(samples, top_k=None)]


def compare(first: Path, second: Path) -> int:
    """Print each key whose values differ or that one record lacks; returns how many there are."""
    records = [json.loads(path.read_text()) for path in (first, second)]
    names = records[0]["names"]  # a public name more breaks nobody's program
    records[1]["names"] = [name for name in records[1]["names"] if name in names]
    one, two = ({key: json.dumps(value) for key, value in record.items()} for record in records)
    different = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    for key in different:
        print(key, one.get(key, "missing")[:160], two.get(key, "missing")[:160], sep="\n    ")
    print(f"{len(different)} keys differ; there are {len(one)} in {first} and {len(two)} in {second}")
    return len(different)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="what to write, or the two to compare")
    parser.add_argument("--compare", action="store_true", help="compare two records")
    arguments = parser.parse_args()
    if arguments.compare:
        sys.exit(compare(*arguments.files) > 0)
    (file,) = arguments.files
    from whisper_bits import record_whisper  # which has this module's functions

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    record: Record = {}
    with tempfile.TemporaryDirectory() as scratch:
        write_vocabularies(Path(scratch))
        for part in (record_defaults, record_processing, record_models, record_whisper, record_engines):
            part(record, Path(scratch))
    file.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(f"{len(record)} keys in {file}")


if __name__ == "__main__":
    main()
