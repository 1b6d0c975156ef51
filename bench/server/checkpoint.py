"""Checkpoint of the load test: Speech2Text small with random weights, as fast as a trained one."""

import json
from pathlib import Path

NEW_TOKENS = 53  # of each recording: 15.5 s, their mean, at 3.4 tokens a second
_END = 2


def write_small(folder: Path) -> None:
    """Write a checkpoint whose texts differ from recording to recording, and have speech's mean length."""
    import torch
    from torch.nn.init import xavier_normal_

    from ..common.workload import build_model, write_processor

    model = build_model("small", torch.device("cpu"), torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                xavier_normal_(parameter, gain=2.0)
    model.save_pretrained(folder)
    write_processor(folder, model.config.vocab_size)
    options = folder / "generation_config.json"
    fixed = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "suppress_tokens": [_END]}
    options.write_text(json.dumps(json.loads(options.read_text()) | fixed))
