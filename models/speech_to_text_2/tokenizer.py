"""Tokenizer of Speech2Text2: byte-pair encoding of words, with @@ after every subword but a word's last."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..checkpoints import contents
from ..checkpoints.contents import check_file
from ..checkpoints.files import Checkpoint
from ..tokenizers.slow import VOCAB_FILE, PythonTokenizer, read_vocabulary

_MERGES_FILE = "merges.txt"
_CONTINUES, _ENDS = "@@", "</w>"  # markers: in the vocabulary a word goes on, in merges it ends


class Speech2Text2Tokenizer(PythonTokenizer):
    """Byte-pair tokenizer: encodes text to token ids, decodes token ids to text, as in transformers 4.

    transformers 5 has no such tokenizer.

    Args:
        vocab_file: vocabulary file, a JSON object from token to id.
        merges_file: file with a pair of subwords per line, in order of precedence; without it the tokenizer
            only decodes.
        **options: bos_token, eos_token, pad_token, unk_token; do_lower_case: encode text in lower case; and
            the options of every `Tokenizer`.

    Raises:
        ValueError: a broken file, or an option's bad value; TypeError: an unknown option.
    """

    do_lower_case: bool = False
    neutral = frozenset({"merges_file"})

    def __init__(self, vocab_file: str | Path, merges_file: str | Path | None = None, **options: Any) -> None:
        self._configure(options)
        self.encoder = read_vocabulary(vocab_file)
        self.decoder = {index: token for token, index in self.encoder.items()}
        self.merges = None if merges_file is None else _read_merges(Path(merges_file))
        self._number_added_tokens(options.get("added_tokens_decoder") or {})

    def _pieces(self, text: str) -> list[str]:
        if self.merges is None:
            raise ValueError(
                f"this tokenizer has no {_MERGES_FILE}, so it decodes token ids and cannot encode text; "
                "give the file with the vocabulary"
            )
        words = (text.lower() if self.do_lower_case else text).split()
        return [piece for word in words for piece in _split_word(word, self.merges)]

    def _decode(self, token_ids: Any, skip_special_tokens: bool) -> str:
        tokens = self.convert_ids_to_tokens([token_ids] if isinstance(token_ids, int) else token_ids)
        # Compare texts, as an id beyond the vocabulary is no special token, but decodes to the unknown one.
        skip = set(self.all_special_tokens) if skip_special_tokens else set()
        return self.convert_tokens_to_string([token for token in tokens if token not in skip])

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """Join tokens to text, with added tokens as words of their own."""
        apart = set(self.added_tokens_encoder) - set(self.all_special_tokens)
        apart |= {token for token in self.additional_special_tokens if token not in self.encoder}
        texts: list[str] = []
        joined: list[str] = []
        for token in (*tokens, None):
            if token is not None and token not in apart:
                joined.append(token)
                continue
            text = " ".join(joined).replace(f"{_CONTINUES} ", "")
            texts += [text] if joined and (text or token is None) else []
            texts += [] if token is None else [token]
            joined = []
        return " ".join(texts)

    def _bytes(self, token: str) -> bytes:
        goes_on = token.endswith(_CONTINUES)
        return (token.removesuffix(_CONTINUES) if goes_on else f"{token} ").encode()

    @classmethod
    def _vocabulary(cls, checkpoint: Checkpoint) -> tuple[Any, ...]:
        return checkpoint.require(VOCAB_FILE), checkpoint.find(_MERGES_FILE)

    def _files(self) -> dict[str, dict[str, Any] | bytes]:
        lines = "".join(f"{' '.join(pair)}\n" for pair in self.merges or ())
        return super()._files() | ({} if self.merges is None else {_MERGES_FILE: lines.encode()})


def _split_word(word: str, merges: dict[tuple[str, ...], int]) -> list[str]:
    """Subwords of one word: its letters, merged pair by pair, the pair with the lowest rank first."""
    if len(word) == 1:
        return [word]
    pieces = [*word[:-1], word[-1] + _ENDS]
    while len(pieces) > 1:
        best = min(pairwise(pieces), key=lambda pair: merges.get(pair, len(merges)))
        if best not in merges:
            break
        merged: list[str] = []
        for piece in pieces:
            if merged and (merged[-1], piece) == best:
                merged[-1] += piece
            else:
                merged.append(piece)
        pieces = merged
    last = pieces.pop().removesuffix(_ENDS)
    return [*(f"{piece}{_CONTINUES}" for piece in pieces), last]


def _read_merges(path: Path) -> dict[tuple[str, ...], int]:
    """Read the rank of each subword pair from a merges file; ValueError if it is not text, or too large."""
    check_file(path, contents.MAX_JSON_BYTES)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text: {error}") from None
    return {tuple(line.split()[:2]): rank for rank, line in enumerate(lines)}
