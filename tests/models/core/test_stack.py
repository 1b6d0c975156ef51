"""Text decoders: batches, caches and pages, positions, and refused inputs."""

from typing import Any

import pytest
import torch
from factories import add_noise
from parity import pad_rows
from text_families import make
from torch import Tensor

from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.runtime.packing import cumulative
from tritone.models.core.losses import shift_left
from tritone.models.core.padding import TokenMasks
from tritone.models.core.stack import PositionIndexer
from tritone.models.speech_to_text_2.model import Speech2Text2ForCausalLM
from tritone.scheduler.cache.attention_metadata import AttentionMetadata, PageLayout
from tritone.scheduler.cache.paged_cache import PagedCache

LENGTHS, SOURCES = (4, 9, 1, 6, 17, 2, 33, 12), (7, 3, 30, 1, 5, 16, 9, 2)


def build(family: str) -> Any:
    """A decoder with weights at which everything matters."""
    return add_noise(make(family, "ForCausalLM"), 0.3)


@pytest.fixture(params=["Bart", "MBart", "Speech2Text2"])
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


def recording(row: int) -> tuple[Tensor, Tensor]:
    """One row's tokens [length] and encoder output [source, width], unlike any other's."""
    draw = torch.Generator().manual_seed(row)
    return torch.randint(2, 29, (LENGTHS[row],), generator=draw), torch.randn(
        SOURCES[row], 24, generator=draw
    )


def batch(order: list[int], side: str = "right") -> dict[str, Tensor]:
    """Recordings padded with tokens and numbers that must not be read."""
    recordings = [recording(row) for row in order]
    ids, mask = pad_rows([tokens for tokens, _ in recordings], 3, side)
    encoded, source_mask = pad_rows([source for _, source in recordings], float("nan"), "right")
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "encoder_hidden_states": encoded,
        "encoder_attention_mask": source_mask,
    }


@pytest.mark.parametrize("side", ["right", "left"])
@torch.inference_mode()
def test_a_row_has_the_bits_of_the_row_alone_wherever_it_lies_in_a_batch(model: Any, side: str) -> None:
    alone = {row: model(**batch([row])) for row in range(8)}
    for first in range(8):
        order = [(first + row) % 8 for row in range(8)]
        given = batch(order, side)
        together = model(**given, output_hidden_states=True, output_attentions=True)
        for index, row in enumerate(order):
            there = given["attention_mask"][index].bool()
            assert torch.equal(together.logits[index, there], alone[row].logits[0])
            assert not together.hidden_states[1][index, ~there].any()
            assert not together.attentions[1][index][:, ~there].any()
            assert not together.cross_attentions[1][index][:, :, SOURCES[row] :].any()
            for ours, wanted in zip(together.past_key_values, alone[row].past_key_values, strict=True):
                assert torch.equal(ours[0][index][:, there], wanted[0][0])
                assert torch.equal(ours[3][index][:, : SOURCES[row]], wanted[3][0])


@torch.inference_mode()
def test_a_row_goes_on_in_a_batch_as_it_does_alone(model: Any) -> None:
    given = batch([1, 2, 5])
    past = model(**given).past_key_values
    token = torch.tensor([[3], [4], [5]])
    ahead = model(
        token,
        torch.cat([given["attention_mask"], torch.ones(3, 1)], dim=1),
        encoder_attention_mask=given["encoder_attention_mask"],
        past_key_values=past,
    ).logits
    for index, row in enumerate((1, 2, 5)):
        tokens, encoded = recording(row)
        whole = torch.cat([tokens, token[index]])[None]
        wanted = model(whole, encoder_hidden_states=encoded[None]).logits
        torch.testing.assert_close(ahead[index, 0], wanted[0, -1], rtol=0, atol=1e-5)


def decoded(model: Any, rows: list[int], steps: int, padding_at: int | None = None) -> Tensor:
    """Logits [steps, rows, vocabulary] of `steps` decode steps over pages, a request a row.

    At position `padding_at` each reads the padding token.
    """
    blocks = 3  # of self-attention, and as many for the encoder's
    cache = PagedCache(*model.cache_shape, 2 * blocks * len(rows), model.dtype, model.device)
    own = torch.arange(blocks * len(rows), dtype=torch.int32).view(len(rows), blocks).flip(1)
    cross = own + blocks * len(rows)
    sources = [recording(row)[1] for row in rows]
    owned = [(table.numpy(), len(source)) for table, source in zip(cross, sources, strict=True)]
    positions = cache.cross_positions(owned)
    cache.store_cross(model.cross_key_values(torch.cat(sources)), positions)
    cu_rows = cumulative([1] * len(rows))
    source_lengths = torch.tensor([len(source) for source in sources], dtype=torch.int32)
    logits = []
    for position in range(steps):
        attention = AttentionMetadata(
            cache,
            positions=own[:, position // PAGE_SIZE].long() * PAGE_SIZE + position % PAGE_SIZE,
            own=PageLayout(
                own,
                lengths=torch.full((len(rows),), position + 1, dtype=torch.int32),
                cu_rows=cu_rows,
                origin=torch.zeros(len(rows), position + 1, dtype=torch.int32),
            ),
            cross=PageLayout(cross, source_lengths, cu_rows),
        )
        tokens = torch.stack([recording(row)[0][position] for row in rows])
        if position == padding_at:
            tokens.fill_(model.config.pad_token_id)
        logits.append(model.decode(tokens, torch.full((len(rows),), position), attention))
    return torch.stack(logits)


@torch.inference_mode()
def test_decode_steps_over_pages_give_what_teacher_forcing_gives(model: Any) -> None:
    together = decoded(model, [4, 6, 7], 12)
    for index, row in enumerate((4, 6, 7)):
        tokens, encoded = recording(row)
        wanted = model(tokens[None, :12], encoder_hidden_states=encoded[None]).logits[0]
        torch.testing.assert_close(together[:, index], wanted, rtol=0, atol=1e-4)
        assert torch.equal(decoded(model, [row], 12)[:, 0], together[:, index])
    tokens, encoded = recording(6)  # over more than one page
    wanted = model(tokens[None], encoder_hidden_states=encoded[None]).logits[0]
    torch.testing.assert_close(decoded(model, [6], 33)[:, 0], wanted, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_padding_token_that_was_generated_counts_from_then_on(model: Any) -> None:
    tokens, encoded = recording(4)
    tokens[3] = model.config.pad_token_id
    past, wanted = None, []
    for token in tokens[:8]:
        output = model(token.view(1, 1), encoder_hidden_states=encoded[None], past_key_values=past)
        past = output.past_key_values
        wanted.append(output.logits[0])
    ours = decoded(model, [4], 8, padding_at=3)
    torch.testing.assert_close(ours, torch.stack(wanted), rtol=0, atol=1e-4)
    whole = model(tokens[None, :8], encoder_hidden_states=encoded[None]).logits[0]
    # Where padding tokens have no positions, those behind them are counted without them in one call.
    skipping = isinstance(model, Speech2Text2ForCausalLM)
    assert ((ours[:, 0] - whole).abs().amax(1) > 0.01).tolist() == [False] * 4 + [skipping] * 4


@torch.inference_mode()
def test_a_bidirectional_decoder_sees_all_of_a_sequence_and_keeps_nothing() -> None:
    model = build("Bart")
    tokens, _ = recording(4)
    other = tokens.clone()
    other[-1] = 2 if tokens[-1] != 2 else 3
    causal = [model(given[None]).logits[0, 0] for given in (tokens, other)]
    assert torch.equal(*causal)
    model.get_decoder().causal = False
    output = model(tokens[None], output_attentions=True)
    assert (output.logits[0, 0] - causal[0]).abs().max() > 0.1
    assert (output.logits[0, 0] - model(other[None]).logits[0, 0]).abs().max() > 0.01
    assert output.attentions[0].min() > 0
    assert output.past_key_values is None
    alone = model(**batch([4])).logits[0]
    assert torch.equal(model(**batch([6, 4, 1])).logits[1, : len(tokens)], alone)
    past = [(torch.zeros(1, 3, 1, 8),) * 2] * 2
    with pytest.raises(ValueError, match="past_key_values needs a decoder; set is_decoder=True"):
        model(tokens[None, :1], past_key_values=past)


def token_masks(past: list[list[int]], target: list[list[int]]) -> TokenMasks:
    given = torch.tensor(past).bool(), torch.tensor(target).bool()
    return TokenMasks(*given, torch.zeros(len(target), 0, dtype=torch.bool))


def test_positions_count_the_tokens_that_are_there() -> None:
    tokens = torch.tensor([[9, 1, 5, 7], [1, 1, 6, 8]])
    masks = token_masks([[1, 0, 1], [0, 0, 0]], [[1, 1, 1, 0], [0, 1, 1, 1]])
    plain, padded = PositionIndexer(2, 9), PositionIndexer(2, 9, padding=1)
    assert plain.of_call(tokens, masks).tolist() == [4, 5, 6, 2, 3, 4]
    assert padded.of_call(tokens, masks).tolist() == [4, 1, 5, 1, 2, 3]
    assert padded.of_call(torch.zeros(2, 4, 3), masks).tolist() == [4, 5, 6, 2, 3, 4]  # embeddings all count
    step, at = torch.tensor([4, 1, 1]), torch.tensor([0, 1, 8])
    assert plain.of_step(step, at).tolist() == [2, 3, 10]
    assert padded.of_step(step, at).tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match="5 decoder tokens, and the model has 4 positions; give fewer"):
        PositionIndexer(2, 4).of_call(tokens, masks)


@torch.inference_mode()
def test_positions_given_by_hand_are_rows_of_the_table() -> None:
    decoder = build("Bart").get_decoder()
    tokens = recording(1)[0][None]
    wanted = decoder(tokens).last_hidden_state
    rows = torch.arange(2, 11)[None]
    assert torch.equal(decoder.run_padded(tokens, position_ids=rows).last_hidden_state, wanted)
    shifted = decoder.run_padded(tokens, position_ids=rows + 1).last_hidden_state
    assert (shifted - wanted).abs().max() > 0.1
    for ids, problem in (
        (rows + 32, "position_ids go from 34 to 42, and the model has positions 0 to 41"),
        (rows - 3, "position_ids go from -1 to 7"),
        (rows[:, 1:], r"position_ids must be \[1, 9\], got \[1, 8\]"),
    ):
        with pytest.raises(ValueError, match=problem):
            decoder.run_padded(tokens, position_ids=ids)


@torch.inference_mode()
def test_what_is_kept_may_come_back_as_lists_and_without_an_encoder_is_half(model: Any) -> None:
    tokens, encoded = recording(1)
    tokens, encoded = tokens[None], encoded[None]
    past = model(tokens[:, :5], encoder_hidden_states=encoded).past_key_values
    assert past.has_cross
    assert past.get_seq_length() == 5
    wanted = model(tokens[:, 5:], past_key_values=past).logits
    again = model(tokens[:, 5:], past_key_values=[list(layer) for layer in past])
    assert torch.equal(again.logits, wanted)
    assert again.past_key_values.get_seq_length() == 9
    assert model(tokens, use_cache=False).past_key_values is None
    alone = model(tokens[:, :5]).past_key_values
    assert not alone.has_cross
    assert [len(layer) for layer in alone] == [2, 2]
    # An encoder that comes later is attended to from then on, and stays in the past.
    later = model(tokens[:, 5:], encoder_hidden_states=encoded, past_key_values=alone).past_key_values
    assert later.has_cross
    assert torch.equal(later[0][2], past[0][2])
    assert torch.equal(later[1][0][:, :, :5], alone[1][0])


def test_labels_are_shifted_to_what_they_are_compared_with() -> None:
    assert shift_left(torch.tensor([[4, 5, -100, 7]])).tolist() == [[5, -100, 7, -100]]
    with pytest.raises(ValueError, match=r"labels must be \[batch, target\], got \[3\]"):
        shift_left(torch.tensor([1, 2, 3]))


TOKENS = torch.full((2, 3), 4)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input_ids": None}, "give either input_ids or inputs_embeds"),
    ({"inputs_embeds": torch.ones(2, 3, 24)}, "give either input_ids or inputs_embeds"),
    (
        {"input_ids": None, "inputs_embeds": torch.ones(2, 3, 9)},
        r"inputs_embeds must be \[batch, tokens, 24\], got \[2, 3, 9\]",
    ),
    ({"input_ids": TOKENS[0]}, r"input_ids must be \[batch, tokens\], got \[3\]"),
    ({"input_ids": TOKENS + 25}, "input_ids go from 29 to 29, and the model knows tokens 0 to 28"),
    ({"attention_mask": torch.ones(2, 4)}, r"^attention_mask must be \[2, 3\], got \[2, 4\]"),
    ({"input_ids": torch.full((2, 41), 4)}, "41 decoder tokens, and the model has 40 positions; give fewer"),
    ({"encoder_hidden_states": torch.ones(3, 5, 24)}, "given 2 rows, and the encoder's output has 3"),
    (
        {"encoder_hidden_states": torch.ones(2, 5, 12)},
        r"encoder_hidden_states must be \[batch, source, 24\], got \[2, 5, 12\]",
    ),
    (
        {"encoder_hidden_states": torch.ones(2, 5, 24), "encoder_attention_mask": torch.ones(2, 4)},
        r"encoder_attention_mask must be \[2, 5\], got \[2, 4\]",
    ),
    ({"head_mask": torch.ones(2, 2)}, "^head_mask must have one number for each of the 3 heads"),
    ({"past_key_values": ((TOKENS,) * 3,) * 2}, r"or \(key, value\) for each of the 2 layers, got \[3, 3\]"),
    ({"past_key_values": ((TOKENS,) * 2,) * 2}, r"tensors \[batch, heads, length, head_dim\], got \[2, 3\]"),
    ({"past_key_values": ((1, 2),) * 2}, r"must hold tensors .* got int"),
    ({"past_key_values": TOKENS}, "must be what an earlier call returned.* got Tensor"),
    ({"past_key_values": ((torch.ones(1, 3, 2, 8),) * 2,) * 2}, "given 2 rows, past_key_values has 1"),
    (
        {
            "past_key_values": ((torch.ones(2, 3, 2, 8),) * 4,) * 2,
            "encoder_hidden_states": torch.ones(2, 5, 24),
        },
        r"is of an encoder output \[2, 2\], and encoder_hidden_states is \[2, 5\]",
    ),
    ({"labels": TOKENS[:, :2]}, r"labels \[2, 2\] do not fit decoder inputs \[2, 3\]"),
    ({"labels": TOKENS + 25}, "labels go from 29 to 29"),
]


@pytest.mark.parametrize(("change", "problem"), REFUSED, ids=[problem[:30] for _, problem in REFUSED])
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        build("Bart")(**{"input_ids": TOKENS, **change})


def test_a_model_without_cross_attention_refuses_an_encoder() -> None:
    model = build("Bart")
    model.get_decoder().has_cross_attention = False
    with pytest.raises(
        ValueError, match="without cross-attention; set is_decoder=True and add_cross_attention"
    ):
        model(TOKENS, encoder_hidden_states=torch.ones(2, 5, 24))


def test_the_gradient_of_a_padded_batch_is_the_sum_of_its_rows_and_none_of_its_padding(model: Any) -> None:
    given = batch([0, 1, 3])
    encoded = given["encoder_hidden_states"].nan_to_num().requires_grad_()
    model(**{**given, "encoder_hidden_states": encoded}).logits[
        given["attention_mask"] == 1
    ].square().sum().backward()
    together = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    for row in (0, 1, 3):
        model(**batch([row])).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        scale = float(parameter.grad.abs().max()) + 1.0
        torch.testing.assert_close(together[name] / scale, parameter.grad / scale, rtol=0, atol=1e-4)
    assert encoded.grad[given["encoder_attention_mask"] == 1].abs().sum(-1).min() > 0
    assert not encoded.grad[given["encoder_attention_mask"] == 0].any()
