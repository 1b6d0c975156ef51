"""Archive of recordings in 20 formats, of which 30 are broken."""

import pytest
from archive import BEGIN, BROKEN, END, OTHERS, PAGE, make_archive
from commands import records, tritone_invoke


@pytest.mark.slow
def test_each_broken_recording_fails_and_no_other_does(ctc_checkpoint, tmp_path):
    make_archive(tmp_path / "archive", count=120)
    call = (
        tmp_path / "archive",
        "--model",
        ctc_checkpoint,
        "--output",
        tmp_path / "out.jsonl",
        "--device",
        "cpu",
    )
    run = tritone_invoke(*call)
    found = records(tmp_path / "out.jsonl")
    broken = sum(count for count, _ in BROKEN)
    assert (len(found), sum(record["error"] is not None for record in found)) == (120, broken)
    assert f"{broken} failed, {len(OTHERS)} files of other kinds left out" in run.stderr
    assert "7 is empty: first" in run.stderr
    assert len({record["path"].rpartition(".")[2] for record in found if record["error"] is None}) == 20
    again = tritone_invoke(*call)
    assert f"{broken} files, 0.0 s of audio" in again.stderr
    assert f"{120 - broken} there already" in again.stderr


def test_the_page_has_the_session():
    session = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert "$ tritone archive --output archive.jsonl\n" in session
    assert "30 failed" in session
