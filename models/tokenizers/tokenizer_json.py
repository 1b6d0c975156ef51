"""Generic tokenizer that a checkpoint's tokenizer.json defines entirely."""

import json
from typing import Any, ClassVar

import tokenizers
from tokenizers.processors import PostProcessor

from ..checkpoints.contents import read_json
from ..checkpoints.files import Checkpoint
from .charsmap import check_normalizer
from .fast import LIBRARY_FILE, LibraryTokenizer
from .options import NAMED_TOKENS


class PreTrainedTokenizerFast(LibraryTokenizer):
    """Generic tokenizer defined by a tokenizer.json, as in transformers (TokenizersBackend in version 5).

    The file defines how text is normalized, split, decoded and surrounded by special tokens; the options
    assign roles, such as padding, to its tokens.

    Args:
        written: content of a tokenizer.json as text.
        **options: bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token, None by
            default; and the options of every `Tokenizer`.

    Raises:
        ValueError: an invalid tokenizer.json or option value.
        TypeError: an unknown option.
    """

    special_tokens: ClassVar[dict[str, Any]] = dict.fromkeys(NAMED_TOKENS)
    # Options that the file overrides, as in transformers.
    neutral = frozenset({"add_bos_token", "add_eos_token", "add_prefix_space", "do_lower_case"})

    def _build(self, written: str) -> tokenizers.Tokenizer:
        backend = tokenizers.Tokenizer.from_str(written)
        backend.no_truncation()  # each call sets its own
        backend.no_padding()
        self.model = type(backend.model).__name__
        return backend

    def _around(self) -> PostProcessor:
        written = self.backend.post_processor
        return self._template("$A:0", "$A:0 $B:1") if written is None else written

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        path = checkpoint.require(LIBRARY_FILE)
        written = read_json(path)
        try:
            check_normalizer(written.get("normalizer"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; fetch it again") from None
        return (json.dumps(written),)
