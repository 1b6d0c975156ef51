"""Part of `record_bits` about Whisper: features, encoder, logits, and tokens of recordings of any length."""

import json
from pathlib import Path

import torch
from record_bits import DTYPES, RATE, Record, add_files, bits, filled, recording, table

import tritone

WHISPER_WAYS = """
greedy; given language="de" task="translate"; beams num_beams=3; times return_timestamps=true;
drawn temperature=0.9 top_k=20; prompted prompt_ids=[46,5,9] language="en";
searched num_beams=2 return_timestamps=true;
scores return_dict_in_generate=true output_scores=true num_beams=2;
long return_timestamps=true condition_on_prev_tokens=true temperature=0.0;
long-fallback return_timestamps=true temperature=[0.0,0.8] logprob_threshold=-0.5 return_segments=true"""


def record_whisper(record: Record, root: Path) -> None:
    """Record Whisper's outputs padded and alone, and tokens and scores of `WHISPER_WAYS`."""
    fields: Record = {"num_mel_bins": 8, "max_source_positions": 40, "max_target_positions": 48}
    fields |= {"vocab_size": 96, "d_model": 24, "begin_suppress_tokens": None, "num_labels": 3}
    fields |= {"classifier_proj_size": 12, "decoder_start_token_id": 41}
    for half in ("encoder", "decoder"):
        fields |= {f"{half}_layers": 2, f"{half}_attention_heads": 3, f"{half}_ffn_dim": 40}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 40)
    options: Record = {**ends, "decoder_start_token_id": 41, "lang_to_id": {"<|en|>": 42, "<|de|>": 43}}
    options |= {"task_to_id": {"transcribe": 44, "translate": 45}, "prev_sot_token_id": 46}
    options |= {"no_timestamps_token_id": 48, "max_initial_timestamp_index": 9, "max_length": 40}
    draw = torch.Generator().manual_seed(4)
    features = torch.randn(3, 8, 80, generator=draw)
    tokens = torch.randint(3, 40, (3, 7), generator=draw)
    for head in ("ConditionalGeneration", "AudioClassification"):
        kind, folder = getattr(tritone, f"WhisperFor{head}"), root / f"Whisper{head}"
        model = filled(kind(tritone.WhisperConfig(**fields, **ends)))
        model.save_pretrained(folder)
        add_files(record, f"whisper/{head}", folder)
        generates = hasattr(model, "generate")
        if generates:
            (folder / "generation_config.json").write_text(json.dumps(options))
        for dtype in DTYPES:
            key, model = f"whisper/{head}/{dtype}", kind.from_pretrained(folder, dtype=dtype)
            inputs = features.to(model.dtype)
            with torch.no_grad():
                for rows in (slice(0, 3), slice(1, 2)):
                    given: Record = {"decoder_input_ids": tokens[rows]} if generates else {}
                    output = model(inputs[rows], output_hidden_states=True, output_attentions=True, **given)
                    record |= {f"{key}/{rows.start}/{name}": bits(part) for name, part in output.items()}
            for way, call in table(WHISPER_WAYS).items() if generates else ():
                long = inputs.repeat(1, 1, 3) if way.startswith("long") else inputs
                call |= {"attention_mask": torch.ones(3, long.shape[2])} if way.startswith("long") else {}
                record[f"{key}/generate/{way}"] = bits(model.generate(long, seed=3, **call))
    extractor = tritone.WhisperFeatureExtractor()
    for samples in (160, 5_000, 480_000):
        made = extractor(recording(samples)[:samples], sampling_rate=RATE, return_tensors="pt")
        record[f"whisper/features/{samples}"] = bits(made["input_features"])
