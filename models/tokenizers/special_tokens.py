"""Special tokens and common options of tokenizers, checked in the constructor and kept as attributes."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, get_origin

from ..core.batches import one_of
from ..core.field_types import Range, conform
from .options import (
    COMMON_OPTIONS,
    NAMED_TOKENS,
    NEUTRAL_OPTIONS,
    OTHER_OPTIONS,
    AddedToken,
    as_added,
    check_count,
    content_of,
)

Ids = list[int]

_SIDES = ("right", "left")
_NO_LIMIT = int(1e30)  # transformers' value for a checkpoint without model_max_length


def _tokens(name: str, given: dict[str, Any]) -> list[Any]:
    """Special tokens without a role, of a list or of an object by a name of their own."""
    tokens = conform(name, given.get(name, []), list[Any] | dict[str, Any])
    tokens = list(tokens.values()) if isinstance(tokens, Mapping) else tokens
    check_count(len(tokens), name)
    return tokens


def role(name: str) -> tuple[Any, Any]:
    """Properties of one special token such as "bos_token": settable text, and token id; None if unset."""

    def text(self: "SpecialTokens") -> str | None:
        return self._named.get(name)

    def set_text(self: "SpecialTokens", token: Any) -> None:
        self._named.pop(name, None)
        if token is not None:
            self._named[name] = content_of(token)

    def index(self: "SpecialTokens") -> Any:
        return self._id(self._named[name]) if name in self._named else None

    return property(text, set_text), property(index)


class SpecialTokens:
    """Base class of tokenizers with the special tokens by role and the options that all tokenizers take.

    A subclass lists its special tokens with defaults in `special_tokens`. Its own options are annotated class
    attributes with default values; `settings` collects them, and may list properties.
    """

    model_input_names: tuple[str, ...] = ("input_ids", "attention_mask")  # the class's, or a checkpoint's
    special_tokens: ClassVar[dict[str, Any]] = {}
    settings: ClassVar[dict[str, Any]] = {}
    _setting_types: ClassVar[dict[str, Any]] = {}
    neutral: ClassVar[frozenset[str]] = frozenset()  # options of transformers that are ignored

    bos_token, bos_token_id = role("bos_token")
    eos_token, eos_token_id = role("eos_token")
    unk_token, unk_token_id = role("unk_token")
    sep_token, sep_token_id = role("sep_token")
    pad_token, pad_token_id = role("pad_token")
    cls_token, cls_token_id = role("cls_token")
    mask_token, mask_token_id = role("mask_token")

    padding_side: str
    truncation_side: str
    lang_code_to_id: dict[str, int]  # ids of language tokens; empty in other tokenizers

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.settings = cls.settings | {
            name: vars(cls)[name]
            for name, hint in inspect.get_annotations(cls).items()
            if name in vars(cls) and get_origin(hint) is not ClassVar and name != "model_input_names"
        }
        hints = inspect.get_annotations(cls)
        cls._setting_types = cls._setting_types | {
            name: hints[name] for name in cls.settings.keys() & hints.keys()
        }

    def _configure(self, options: dict[str, Any]) -> dict[str, Any]:
        """Set attributes from a constructor's options; returns the settings that are properties.

        Raises:
            ValueError: an invalid option value.
            TypeError: an unknown option.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if given.pop("split_special_tokens", False):
            raise TypeError("split_special_tokens=True is not supported; leave it out")
        names = self._option_names()
        if unknown := sorted(given.keys() - names - NEUTRAL_OPTIONS - self.neutral):
            raise TypeError(f"there is no option {unknown[0]!r}; there are {', '.join(sorted(names))}")
        longest = given.get("model_max_length", given.get("max_len", _NO_LIMIT))
        self.model_max_length = int(conform("model_max_length", longest, Annotated[float, Range(1, 1e300)]))
        self.padding_side = one_of("padding_side", given.get("padding_side", "right"), _SIDES)
        self.truncation_side = one_of("truncation_side", given.get("truncation_side", "right"), _SIDES)
        cleans = given.get("clean_up_tokenization_spaces", False)
        self.clean_up_tokenization_spaces = conform("clean_up_tokenization_spaces", cleans, bool)
        self.processor_class: str | None = conform(
            "processor_class", given.get("processor_class"), str | None
        )
        if (returned := given.get("model_input_names")) is not None:
            self.model_input_names = tuple(conform("model_input_names", returned, list[str]))
        self.lang_code_to_id = {}

        chosen = {name: options.get(name, default) for name, default in self.special_tokens.items()}
        for name, default in self.special_tokens.items():
            if isinstance(chosen[name], str) and isinstance(default, AddedToken):
                chosen[name] = replace(default, content=chosen[name])  # keeps the default's flags
        extra = [*_tokens("additional_special_tokens", given), *_tokens("extra_special_tokens", given)]
        named = {name: token for name, token in chosen.items() if token is not None}
        self._named = {name: content_of(token, name) for name, token in named.items()}
        tokens = [as_added(token, name) for name, token in named.items()]
        more = [as_added(token, "additional_special_tokens") for token in extra]
        self._declared = {token.content: token for token in (*tokens, *more)}
        self._set_extra(token.content for token in more)
        properties = {}
        for name, default in self.settings.items():
            value = default
            if name in given:
                value = conform(name, given[name], self._setting_types.get(name, str | None))
            if isinstance(getattr(type(self), name, None), property):
                properties[name] = value
            else:
                setattr(self, name, value)
        return properties

    @classmethod
    def _option_names(cls) -> set[str]:
        return {*cls.special_tokens, *cls.settings, *COMMON_OPTIONS, *OTHER_OPTIONS}

    def _set_extra(self, tokens: Iterable[str]) -> None:
        """Set `additional_special_tokens`, the special tokens without a role."""
        named = set(self._named.values())
        self.additional_special_tokens = [token for token in dict.fromkeys(tokens) if token not in named]

    def _id(self, token: str) -> Any:
        """Id of a token; for an unknown one the id of `unk_token`, or None without that."""
        raise NotImplementedError

    @property
    def extra_special_tokens(self) -> list[str]:
        """Special tokens without a role; transformers' newer name of `additional_special_tokens`."""
        return self.additional_special_tokens

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Special tokens as a dict from role, such as "bos_token", to token."""
        return dict(self._named)

    @property
    def all_special_tokens(self) -> list[str]:
        """All special tokens, with and without a role; skip_special_tokens=True omits them in decoding."""
        roles = (*NAMED_TOKENS, *(name for name in self._named if name not in NAMED_TOKENS))
        named = [self._named[name] for name in roles if name in self._named]
        return list(dict.fromkeys(named + self.additional_special_tokens))

    @property
    def all_special_ids(self) -> Ids:
        """Ids of all special tokens, in the order of `all_special_tokens`."""
        return [self._id(token) for token in self.all_special_tokens]
