"""Packing of requests' inputs: waveforms, parts of recordings and features in one batch."""

import pytest
import torch

from tritone.kernels.features.log_mel import Excerpt
from tritone.kernels.runtime.packing import cumulative, spans
from tritone.scheduler.inputs import frames_of, pack_inputs, tensor_of
from tritone.scheduler.request import AudioExcerpt, Request

CPU = torch.device("cpu")


class Sums:
    """Front end with one frame per two samples, their sum, twice."""

    def frame_count(self, samples):
        return samples // 2

    def extract_packed(self, waveforms, cu_samples):
        pieces = [waveforms[start:end].unfold(0, 2, 2).sum(1) for start, end in spans(cu_samples)]
        return torch.cat(pieces)[:, None].expand(-1, 2), cumulative([len(piece) for piece in pieces])


class Parts(Sums):
    """The same for parts of recordings, which have the rows that are asked for, filled with 7."""

    def extract_excerpts(self, waveforms, cu_samples, excerpts, dtype=None):
        features, cu_frames = self.extract_packed(waveforms, cu_samples)
        found = []
        for (start, end), excerpt in zip(spans(cu_frames), excerpts, strict=True):
            rows = features[start:end]
            if excerpt is not None:
                rows = torch.cat(
                    [rows[: excerpt.frames], rows.new_full((excerpt.rows - excerpt.frames, 2), 7.0)]
                )
            found.append(rows)
        return torch.cat(found), cumulative([len(rows) for rows in found])


def test_whole_recordings_parts_of_them_and_features_make_one_batch():
    inputs = [
        torch.tensor([1.0, 2.0, 3.0, 4.0]),
        torch.full((1, 2), 5.0),
        AudioExcerpt(torch.tensor([1.0, 1.0, 9.0, 9.0]), Excerpt(1, 3)),
    ]
    requests = [Request(index, one) for index, one in enumerate(inputs)]
    features, cu_frames = pack_inputs(requests, Parts(), CPU, torch.float32)
    assert features[:, 0].tolist() == [3.0, 7.0, 5.0, 2.0, 7.0, 7.0]
    assert cu_frames.tolist() == [0, 2, 3, 6]
    assert [frames_of(request, Parts()) for request in requests] == [2, 1, 3]
    assert tensor_of(requests[2]) is inputs[2].samples


@pytest.mark.parametrize("front_end", [None, Sums()], ids=["no front end", "one without parts"])
def test_a_part_of_a_recording_needs_a_front_end_that_takes_it(front_end):
    with pytest.raises(ValueError, match="takes no AudioExcerpt; give the whole recording"):
        frames_of(Request(0, AudioExcerpt(torch.zeros(4), Excerpt(1, 1))), front_end)
