"""Tokenizer options, special tokens and added tokens, read from a checkpoint's configuration files."""

import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint
from ..core.field_types import Range, conform, shown

MAX_ADDED_TOKENS = 100_000  # far above any checkpoint's
TokenIndex = Annotated[int, Range(0, 2**31 - 1)]
CONFIG_FILE = "tokenizer_config.json"
# Roles in transformers' order, in which tokens that the vocabulary lacks get new ids.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Options common to all tokenizers that save_pretrained writes.
COMMON_OPTIONS = (
    *("model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces"),
    *("processor_class", "additional_special_tokens", "added_tokens_decoder"),
)
# Further options common to all tokenizers: names of other transformers versions.
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
    """Token at which text is split before it is tokenized, with flags as in the `tokenizers` library."""

    content: str
    single_word: bool = False  # match whole words only
    lstrip: bool = False  # match the spaces before it too
    rstrip: bool = False  # match the spaces after it too
    normalized: bool = False  # match in normalized text
    special: bool = True  # left out by skip_special_tokens


def as_added(token: Any, name: str = "a special token") -> AddedToken:
    """Convert a token (string, JSON object or `AddedToken`) to an `AddedToken`; a string is special."""
    if isinstance(token, AddedToken):
        return token
    written = token if isinstance(token, dict) else {}
    content = content_of(token, name)
    flags = {name: written[name] for name in AddedToken.__slots__[1:] if name in written}
    for flag, value in flags.items():
        if type(value) is not bool:  # conform takes its time, over thousands of tokens
            flags[flag] = conform(f"{flag} of the token {shown(content)}", value, bool)
    return AddedToken(content, **flags)


def numbered_tokens(written: Any, where: str) -> dict[int, AddedToken]:
    """Added tokens by id, from a JSON object of tokens or of their texts, with checks.

    Args:
        written: object from id, as text in JSON, to a string, a JSON object or an `AddedToken`.
        where: source of the tokens and the name of the field, for errors.

    Raises:
        ValueError: no such object, over `MAX_ADDED_TOKENS`, a bad id, or a token that is none.
    """
    if not isinstance(written, Mapping):
        raise ValueError(f"{where} must be an object of tokens by id, got {shown(written)}")
    check_count(len(written), where)
    tokens = {}
    for index, token in written.items():
        number = int(index) if isinstance(index, str) and re.fullmatch(r"\d{1,10}", index) else index
        try:
            if type(number) is not int or not 0 <= number < 2**31:
                number = conform("a token's id", number, TokenIndex)
            tokens[number] = as_added(token)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return tokens


def check_count(count: int, where: str) -> None:
    """Refuse over `MAX_ADDED_TOKENS` added tokens, whose cost in every call grows with their number."""
    if count > MAX_ADDED_TOKENS:
        raise ValueError(f"{where} has {count} added tokens, and {MAX_ADDED_TOKENS} are the most")


def content_of(token: Any, name: str = "a special token") -> str:
    """Text of a token given as a string, JSON object or `AddedToken`; a ValueError names `name`."""
    content = _maybe_content(token)
    if not isinstance(content, str):
        raise ValueError(f"{name} must be a string, or an object with content, got {shown(token)}")
    if not is_text(content):
        raise ValueError(f"{name} {shown(content)} has half a surrogate pair in its content; fetch it again")
    return content


def is_text(content: str) -> bool:
    """True for a string that UTF-8 can encode; JSON may hold halves of surrogate pairs."""
    try:
        content.encode()
    except UnicodeEncodeError:
        return False
    return True


def saved_options(
    checkpoint: Checkpoint,
    overrides: dict[str, Any],
    roles: Collection[str],
    known: Collection[str],
    silent: Collection[str],
    in_vocabulary: Callable[[Checkpoint], dict[int, AddedToken]],
) -> dict[str, Any]:
    """Constructor options of a tokenizer, from a checkpoint's files and the caller's overrides.

    Reads tokenizer_config.json and, if it has no added tokens, special_tokens_map.json and
    added_tokens.json. Warns of options that are not used.

    Args:
        checkpoint: checkpoint with the files.
        overrides: options of the caller, which take precedence.
        roles: roles of the tokenizer's special tokens, such as "bos_token".
        known: names of the tokenizer's options.
        silent: names of options that are ignored without a warning.
        in_vocabulary: function that reads added tokens from the vocabulary files.

    Raises:
        ValueError: a malformed file.
    """
    config = checkpoint.find(CONFIG_FILE)
    options = (read_json(config) if config is not None else {}) | overrides
    if (written := options.get("added_tokens_decoder")) is not None:
        added = numbered_tokens(written, f"{config or checkpoint}: added_tokens_decoder")
    else:  # files from before 2023, and transformers 5 files with a tokenizer.json
        if (file := checkpoint.find("special_tokens_map.json")) is not None:
            options |= {name: token for name, token in read_json(file).items() if name not in overrides}
        added = _added_tokens(checkpoint, options) | in_vocabulary(checkpoint)
    options["added_tokens_decoder"] = added

    by_content = {token.content: token for token in added.values()}
    for name in roles:
        content = _maybe_content(options.get(name))
        if isinstance(content, str) and content in by_content:
            options[name] = by_content[content]
    used = {*known, *overrides}  # the constructor raises for unknown options of the caller
    if unused := [
        name for name, value in options.items() if name not in {*used, *silent} and value is not None
    ]:
        names = ", ".join(unused)
        warnings.warn(f"{config or checkpoint} sets {names}, which Tritone does not use", stacklevel=3)
    return {name: value for name, value in options.items() if name in used}


def _added_tokens(checkpoint: Checkpoint, options: dict[str, Any]) -> dict[int, AddedToken]:
    """Tokens of a checkpoint's added_tokens.json by id; special ones are those that `options` name."""
    if (file := checkpoint.find("added_tokens.json")) is None:
        return {}
    named = [_maybe_content(options.get(name)) for name in NAMED_TOKENS]
    more = conform("additional_special_tokens", options.get("additional_special_tokens") or [], list[Any])
    special = {content for content in (*named, *map(_maybe_content, more)) if isinstance(content, str)}
    written = read_json(file)
    check_count(len(written), str(file))
    return {
        conform(f"{file}: the id of {shown(content)}", index, TokenIndex): AddedToken(
            content, normalized=content not in special, special=content in special
        )
        for content, index in written.items()
    }


def _maybe_content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else getattr(token, "content", token)
