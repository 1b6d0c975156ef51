"""Models, configurations and processors pushed to the Hub."""

import os
from typing import Any

import huggingface_hub

import tritone

PROCESSOR_FILES = {
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "sentencepiece.bpe.model",
}


class Uploads:
    """huggingface_hub's HfApi, which remembers what it was asked."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self, **options: Any) -> None:
        type(self).calls = [("HfApi", options)]

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return type("Url", (), {"repo_id": f"somebody/{repo_id}"})

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id, **options}))

    def upload_folder(self, *, folder_path: str, **options: Any) -> str:
        files = sorted(os.listdir(folder_path))
        self.calls.append(("upload_folder", {"files": files, **options}))
        return "the commit"


def test_what_is_saved_can_be_pushed(checkpoint, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Uploads)
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    assert (
        model.push_to_hub("mine", private=True, token="hf_x", revision="v2", max_shard_size="4KB")
        == "the commit"
    )
    names, options = zip(*Uploads.calls, strict=True)
    assert names == ("HfApi", "create_repo", "create_branch", "upload_folder")
    assert options[0]["token"] == "hf_x"
    assert options[1] == {"repo_id": "mine", "private": True, "exist_ok": True}
    assert options[2] == {"repo_id": "somebody/mine", "branch": "v2", "exist_ok": True}
    upload = options[3]
    assert (upload["repo_id"], upload["revision"], upload["create_pr"]) == ("somebody/mine", "v2", False)
    assert upload["commit_message"] == "Upload Speech2TextForConditionalGeneration"
    assert {"config.json", "generation_config.json", "model.safetensors.index.json"} <= set(upload["files"])
    assert "model.safetensors" in upload["delete_patterns"]  # else it would be read before the shards

    processor = tritone.AutoProcessor.from_pretrained(checkpoint)
    for part, expected in (
        (processor, PROCESSOR_FILES),
        (processor.tokenizer, PROCESSOR_FILES - {"preprocessor_config.json"}),
        (processor.feature_extractor, {"preprocessor_config.json"}),
        (model.config, {"config.json"}),
        (model.generation_config, {"generation_config.json"}),
    ):
        part.push_to_hub("mine", commit_message="hello", create_pr=True)
        assert set(Uploads.calls[-1][1]["files"]) == expected
        assert Uploads.calls[-1][1]["commit_message"] == "hello"
        assert Uploads.calls[-1][1]["create_pr"] is True
