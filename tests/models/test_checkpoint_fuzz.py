"""Fields of the JSON files of every family, with bad values: a part of what `make soak` tries."""

from checkpoint_fuzz import fuzz

STEP = 151  # of about 75,000 pairs of a field and a value


def test_a_bad_value_in_a_file_loads_or_is_an_error_that_names_field_and_file(tmp_path):
    counts, faults = fuzz(tmp_path, STEP)
    assert not faults, f"{len(faults)} of {counts.total()}, such as\n" + "\n\n".join(faults[:5])
    assert counts["loaded"] > 50
    assert counts["refused"] > 200
