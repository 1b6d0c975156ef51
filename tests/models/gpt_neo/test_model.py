"""GPT-Neo's kinds of layers and their windows; conformance with transformers is in tests/conformance."""

from pathlib import Path

import torch
from text_families import SIZES, make, tokens

from tritone.models.gpt_neo.config import GPTNeoConfig


def test_the_kinds_of_layers_follow_from_the_types_by_default_and_after_a_round_trip(tmp_path: Path) -> None:
    assert GPTNeoConfig().attention_layers == ["global", "local"] * 12
    config = GPTNeoConfig(**SIZES["GPTNeo"])
    assert config.attention_layers == ["global", "local", "local"]
    config.save_pretrained(tmp_path)
    assert GPTNeoConfig.from_pretrained(tmp_path) == config
    changed = GPTNeoConfig.from_pretrained(tmp_path, attention_types=[[["local", "global", "local"], 1]])
    assert changed.attention_layers == ["local", "global", "local"]
    assert GPTNeoConfig(num_hidden_layers=2, attention_types=[[["local"], 2]]).num_layers == 2


@torch.no_grad()
def test_a_local_layer_sees_so_many_tokens_and_no_more() -> None:
    model = make("GPTNeo", "Model", num_layers=1, attention_types=[[["local"], 1]])
    given = tokens(1, 12)
    changed = given.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 31
    differs = (model(given).last_hidden_state != model(changed).last_hidden_state).any(-1)[0]
    assert differs.nonzero()[:, 0].tolist() == [5, 6, 7, 8]
