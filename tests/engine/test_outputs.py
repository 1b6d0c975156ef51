"""Text in pieces, where a tokenizer makes that hard."""

import threading
import time

from tritone.engine.handle import Handle, RequestOutput
from tritone.engine.outputs import TokenReader
from tritone.scheduler.request import FinishReason

SOON = 10  # seconds


def pieces_of(tokens: list[str], decode, whole_words=False) -> tuple[list[str], str]:
    """What iteration yields where each token arrives alone, and the final text."""
    reader = TokenReader(lambda ids: decode([tokens[i] for i in ids]), whole_words)
    handle = Handle(None, reader, lambda handle: False)
    found = []
    iterator = iter(handle)

    def consume():
        found.extend(iterator)

    thread = threading.Thread(target=consume)
    thread.start()
    for index in range(len(tokens)):
        handle.add_tokens((index,))
        time.sleep(0.002)
    handle.finish(RequestOutput(FinishReason.STOP, tuple(range(len(tokens)))))
    thread.join(SOON)
    return found, handle.result().text


def test_a_character_of_several_byte_tokens_is_yielded_once_it_is_whole():
    def decode(tokens):
        return b"".join(tokens).decode(errors="replace")

    found, text = pieces_of([bytes([byte]) for byte in "né €".encode()], decode)
    assert "".join(found) == text == "né €"
    assert not any("\ufffd" in piece for piece in found)


def test_a_tokenizer_that_takes_spaces_away_again_streams_whole_words():
    def decode(tokens):
        return "".join(tokens).strip().replace(" n't", "n't").replace(" ,", ",")

    found, text = pieces_of(["I", " do", " n", "'t", " know", " ,", " no"], decode, whole_words=True)
    assert "".join(found) == text == "I don't know, no"
    assert len(found) > 2
