"""Rows of the tables by sequence slot: written at an admission, gathered for a batch, read at the end."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from tritone.kernels.slots.admit import COLUMNS, SEED_COLUMN, SlotFields, admit, admit_reference
from tritone.kernels.slots.finished import BEFORE, finished, finished_reference
from tritone.kernels.slots.gather import SlotRows, gather, gather_reference
from tritone.kernels.slots.tables import DRAW_INDEX, DRAWS, NUMBERS, SEED, SEQUENCE_INDEX

SLOTS, MAX_TOKENS, WORST = 70, 37, -1.0e9


def fields(self_blocks: int = 35, cross_blocks: int = 67) -> SlotFields:
    generator = torch.Generator().manual_seed(1)

    def table(*shape: int) -> Tensor:
        return torch.randint(100, 10**6, shape, generator=generator, dtype=torch.int32)

    draws = torch.randint(0, 2**62, (DRAWS, SLOTS), generator=generator)
    return SlotFields(table(NUMBERS, SLOTS), draws, table(SLOTS, self_blocks), table(SLOTS, cross_blocks))


def sequences() -> SimpleNamespace:
    generator = torch.Generator().manual_seed(2)

    def numbers(*shape: int) -> Tensor:
        return torch.randint(0, MAX_TOKENS, shape, generator=generator, dtype=torch.int32)

    return SimpleNamespace(
        tokens=numbers(SLOTS, MAX_TOKENS),
        final_tokens=numbers(SLOTS, MAX_TOKENS),
        length=numbers(SLOTS),
        final_length=numbers(SLOTS),
        ended_count=numbers(SLOTS),
        score=torch.randn(SLOTS, generator=generator),
        final_score=torch.randn(SLOTS, generator=generator),
        done=torch.ones(SLOTS, dtype=torch.bool),
        final_done=torch.ones(SLOTS, dtype=torch.bool),
        request_done=torch.ones(SLOTS, dtype=torch.bool),
    )


def moved(tables, device: str):
    """Copies of tables on a device."""
    copies = {name: table.clone().to(device) for name, table in vars_of(tables).items()}
    return type(tables)(**copies)


def vars_of(tables) -> dict[str, Tensor]:
    return tables._asdict() if isinstance(tables, tuple) else vars(tables)


def same(found, wanted) -> None:
    for name, table in vars_of(wanted).items():
        assert torch.equal(vars_of(found)[name].cpu(), table), name


@pytest.mark.parametrize("rows", [1, 5, 33])
def test_an_admission_writes_every_table_as_the_reference_does_and_no_other_row(rows, kernels_on):
    generator = torch.Generator().manual_seed(rows)
    own = torch.randint(1, 36, (rows,), generator=generator)
    cross = torch.randint(0, 68, (rows,), generator=generator) * (torch.arange(rows) % 3 == 0)
    slots = torch.randperm(SLOTS, generator=generator)[:rows]
    table = torch.randint(0, 99, (rows, COLUMNS), generator=generator, dtype=torch.int32)
    table[:, 0] = slots
    table[:, NUMBERS + 2] = torch.arange(rows) % 2
    ends = (own + cross).cumsum(0) + rows * COLUMNS
    table[:, NUMBERS + 3 : NUMBERS + 7] = torch.stack([ends - own, own, ends - own - cross, cross], 1)
    seeds = torch.randint(-(2**62), 2**62, (rows,), generator=generator)
    table[:, SEED_COLUMN:] = seeds.view(torch.int32).view(rows, 2)
    pages = torch.randint(0, 10**6, (int((own + cross).sum()),), generator=generator, dtype=torch.int32)
    admitted = torch.cat([table.flatten(), pages])
    wanted, wanted_sequences = fields(), sequences()
    admit_reference(admitted, rows, wanted, wanted_sequences, WORST)
    found, found_sequences = moved(fields(), kernels_on), moved(sequences(), kernels_on)
    for _ in range(2):  # a step that failed is repeated
        admit(admitted.to(kernels_on), rows, found, found_sequences, WORST)
    same(found, wanted)
    same(found_sequences, wanted_sequences)
    assert torch.equal(wanted.draws[SEED, slots], seeds)
    assert torch.equal(wanted.draws[DRAW_INDEX, slots], table[:, 1 + SEQUENCE_INDEX].long())
    others = torch.ones(SLOTS, dtype=torch.bool)
    others[slots] = False
    for name, before in (fields()._asdict() | vars(sequences())).items():
        now = (wanted._asdict() | vars(wanted_sequences))[name]
        by_slot = name not in ("numbers", "draws")
        assert (
            torch.equal(now[others], before[others])
            if by_slot
            else torch.equal(now[:, others], before[:, others])
        )


@pytest.mark.parametrize("hypotheses", [1, 3])
@pytest.mark.parametrize("requests", [1, 11])
def test_a_batch_gets_the_rows_of_its_slots(requests, hypotheses, kernels_on):
    rows = requests * hypotheses
    padded = rows + -rows % 4
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(rows))[:padded]
    by_request = slots[:rows:hypotheses].contiguous()

    def empty(device: str) -> SlotRows:
        def table(*shape: int) -> Tensor:
            return torch.full(shape, -7, dtype=torch.int32, device=device)

        draws = torch.zeros(DRAWS, padded, dtype=torch.int64, device=device)
        return SlotRows(table(NUMBERS, padded), draws, table(rows, 33), table(requests, 40), table(requests))

    wanted = empty("cpu")
    gather_reference(fields(), slots, by_request, 1, wanted)
    for first_slots, step in ((by_request, 1), (slots, hypotheses)):
        found = empty(kernels_on)
        given = slots.to(kernels_on), first_slots.to(kernels_on)
        gather(moved(fields(), kernels_on), *given, step, found)
        same(found, wanted)


@pytest.mark.parametrize("longest", [1, MAX_TOKENS])
@pytest.mark.parametrize("rows", [1, 9])
def test_ended_sequences_are_read_from_the_tables_of_their_search(rows, longest, kernels_on):
    slots = torch.randperm(SLOTS, generator=torch.Generator().manual_seed(rows))[:rows]
    ended = torch.stack([slots, torch.arange(rows) % 2], 1).int()
    wanted = finished_reference(sequences(), ended, longest)
    assert torch.equal(finished(moved(sequences(), kernels_on), ended.to(kernels_on), longest).cpu(), wanted)
    assert wanted.shape == (rows, BEFORE + longest)
    assert torch.equal(wanted[0, 1].view(torch.float32), sequences().score[slots[0]])
