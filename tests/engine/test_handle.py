"""Handles: text in pieces, where a tokenizer makes that hard, and results in the order of their sources."""

import threading
import time
from types import SimpleNamespace

import pytest
from stand_in_loop import SOON, submit

from tritone.engine.handle import Handle, in_order
from tritone.engine.tasks.generation import TokenProcessor
from tritone.scheduler.request import FinishReason, Hypothesis, RequestOutput


def pieces_of(tokens: list, decode, whole_words=False) -> tuple[list[str], str]:
    """The pieces that iteration yields where each token arrives alone, and the final text."""
    tokenizer = SimpleNamespace(
        decode=lambda ids, skip_special_tokens: decode([tokens[i] for i in ids]),
        clean_up_tokenization_spaces=whole_words,
    )
    handle = Handle(None, TokenProcessor(tokenizer), lambda handle: False)
    found = []
    iterator = iter(handle)

    def consume():
        found.extend(iterator)

    thread = threading.Thread(target=consume)
    thread.start()
    for index in range(len(tokens)):
        handle.add_tokens((index,))
        time.sleep(0.002)
    best = Hypothesis(tuple(range(len(tokens))), -1.0, FinishReason.STOP)
    handle.finish(RequestOutput(0, (best,), FinishReason.STOP))
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


def test_results_come_in_the_order_of_the_sources_whatever_ends_first(worker):
    lengths = [30, 1, 9, 2, 2, 17, 1]
    results = in_order(lengths, lambda n: submit(worker, n), ahead=4)
    assert [len(result.token_ids) - 1 for result in results] == lengths


def test_an_endless_source_is_read_a_bounded_number_ahead(worker):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield 2

    results = in_order(endless(), lambda n: submit(worker, n), ahead=5)
    for count in range(1, 30):
        assert next(results).text == "1 2"
        assert len(taken) <= count + 5
    results.close()


def test_a_slow_source_does_not_hold_up_a_result_that_is_there(worker):
    taken = []

    def slow():
        for n in range(1, 4):
            taken.append(n)
            yield n
            time.sleep(0.05)

    results = in_order(slow(), lambda n: submit(worker, n), ahead=100)
    next(results)
    assert len(taken) <= 2


def test_stopping_early_cancels_what_is_under_way(worker):
    handles = []

    def submitted(n):
        handles.append(submit(worker, n))
        return handles[-1]

    results = in_order([1, 10**9, 10**9], submitted, ahead=3)
    next(results)
    results.close()
    for handle in handles[1:]:
        assert handle.result(SOON).finish_reason == "cancelled"


def test_an_error_of_the_source_itself_reaches_the_caller(worker):
    def broken():
        yield 1
        raise KeyError("the database is gone")

    results = in_order(broken(), lambda n: submit(worker, n), ahead=1)
    assert next(results).text == "1"
    with pytest.raises(KeyError, match="database"):
        next(results)
