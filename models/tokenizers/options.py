"""Options, special tokens and added tokens of a tokenizer, from the files beside its vocabulary."""

import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ..checkpoints.files import Checkpoint, read_json

CONFIG_FILE = "tokenizer_config.json"
# In transformers' order, in which tokens that a vocabulary lacks are numbered.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Options of every tokenizer that save_pretrained writes.
COMMON_OPTIONS = (
    *("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces"),
    *("processor_class", "additional_special_tokens", "added_tokens_decoder"),
)
# Further options of every tokenizer: older and newer names.
OTHER_OPTIONS = ("extra_special_tokens", "split_special_tokens", "max_len", "model_input_names")
# Fields of transformers' tokenizer_config.json without effect on how text is split.
NEUTRAL_OPTIONS = frozenset(
    {
        *("tokenizer_class", "name_or_path", "special_tokens_map_file", "tokenizer_file", "backend"),
        *("is_local", "local_files_only", "files_loaded", "transformers_version"),
        *("auto_map", "chat_template", "verbose", "use_fast"),
    }
)


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token to split text at: whole words only (`single_word`), with spaces (`lstrip`, `rstrip`)."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


def as_added(token: Any) -> AddedToken:
    """A token of a file as an `AddedToken`; a string makes a special token."""
    if isinstance(token, AddedToken):
        return token
    written = token if isinstance(token, dict) else {}
    flags = {name: written[name] for name in AddedToken.__slots__ if name in written}
    return AddedToken(**(flags | {"content": content_of(token)}))


def content_of(token: Any) -> str:
    """The text of a token, a string or an object in files; ValueError without a text."""
    content = _maybe_content(token)
    if not isinstance(content, str):
        raise ValueError(f"a special token must be a string, got {token!r}")
    return content


def saved_options(
    checkpoint: Checkpoint,
    overrides: dict[str, Any],
    roles: Collection[str],
    known: Collection[str],
    silent: Collection[str],
    in_vocabulary: Callable[[Checkpoint], dict[int, AddedToken]],
) -> dict[str, Any]:
    """A tokenizer's options from a checkpoint's files and from the caller, whose options take precedence.

    Reads tokenizer_config.json and, unless it has the added tokens, special_tokens_map.json and
    added_tokens.json. Warns of unused options.

    Args:
        overrides: the caller's options.
        roles: names of the tokenizer's special tokens.
        known: names of its options.
        silent: names of options that are ignored without a warning.
        in_vocabulary: finds added tokens in the files of the vocabulary.

    Raises:
        ValueError: a broken file.
    """
    config = checkpoint.find(CONFIG_FILE)
    options = (read_json(config) if config is not None else {}) | overrides
    if (written := options.get("added_tokens_decoder")) is not None:
        if not isinstance(written, dict):
            raise ValueError(f"{config} must hold an object as added_tokens_decoder, got {written!r}")
        added = {int(index): as_added(token) for index, token in written.items()}
    else:  # files of before 2023, and of transformers 5 with a tokenizer.json
        if (file := checkpoint.find("special_tokens_map.json")) is not None:
            options |= {name: token for name, token in read_json(file).items() if name not in overrides}
        added = _added_tokens(checkpoint, options) | in_vocabulary(checkpoint)
    options["added_tokens_decoder"] = added

    by_content = {token.content: token for token in added.values()}
    for name in roles:
        content = _maybe_content(options.get(name))
        if isinstance(content, str) and content in by_content:
            options[name] = by_content[content]
    used = {*known, *overrides}  # the constructor refuses the caller's unknown ones by name
    if unused := [
        name for name, value in options.items() if name not in {*used, *silent} and value is not None
    ]:
        names = ", ".join(unused)
        warnings.warn(f"{config or checkpoint} sets {names}, which Tritone does not use", stacklevel=3)
    return {name: value for name, value in options.items() if name in used}


def _added_tokens(checkpoint: Checkpoint, options: dict[str, Any]) -> dict[int, AddedToken]:
    """The tokens of added_tokens.json, by id."""
    if (file := checkpoint.find("added_tokens.json")) is None:
        return {}
    special = [_maybe_content(options.get(name)) for name in NAMED_TOKENS]
    special += map(_maybe_content, options.get("additional_special_tokens") or ())
    added = {}
    for content, index in read_json(file).items():
        if type(index) is not int:
            raise ValueError(f"{file} must map every token to a whole number, got {index!r}")
        added[index] = AddedToken(content, normalized=content not in special, special=content in special)
    return added


def _maybe_content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
