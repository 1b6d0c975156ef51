"""Tokenizer of a checkpoint whose tokenizer.json is of no family."""

import json
from typing import Any, ClassVar

import tokenizers
from tokenizers.processors import PostProcessor

from ..checkpoints.files import Checkpoint, read_json
from .fast import LIBRARY_FILE, LibraryTokenizer
from .options import NAMED_TOKENS


class PreTrainedTokenizerFast(LibraryTokenizer):
    """Text to token ids and back, as transformers' class of this name (in version 5 TokenizersBackend).

    The file defines how text is normalized, split, joined and framed by special tokens; the options assign
    roles to its tokens, such as padding.

    Args:
        written: text of a tokenizer.json.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: none by
            default; and those of every `Tokenizer`.

    Raises:
        ValueError: text that makes no tokenizer, or an option's bad value; TypeError: an unknown option.
    """

    special_tokens: ClassVar[dict[str, Any]] = dict.fromkeys(NAMED_TOKENS)
    # The file overrides these, as in transformers.
    neutral = frozenset({"add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case"})

    def _build(self, written: str) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(written)
        backend.no_truncation()  # a call sets its own
        backend.no_padding()
        self.model = type(backend.model).__name__
        return backend

    def _around(self) -> PostProcessor:
        written = self.backend.post_processor
        return self._template("$A:0", "$A:0 $B:1") if written is None else written

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        return (json.dumps(read_json(checkpoint.require(LIBRARY_FILE))),)
