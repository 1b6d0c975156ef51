"""The model for Triton Inference Server's Python backend, against a stand-in of the module that is there."""

import asyncio
import importlib.util
import json
import re
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest
from services import EXAMPLES, SIX, TEXT, digits

FOLDER = EXAMPLES / "triton_inference_server" / "speech"
FINAL = 1


class TritonError(Exception):
    INVALID_ARG, UNAVAILABLE, INTERNAL = range(3)


class Sender:
    def __init__(self):
        self.sent, self.flags, self.left = [], [], False

    def send(self, response=None, flags=0):
        self.sent += [] if response is None else [response]
        self.flags.append(flags)

    def is_cancelled(self):
        return self.left


@pytest.fixture(scope="module")
def model():
    """The model as the server makes it, of the parameters in config.pbtxt."""
    stand_in = types.ModuleType("triton_python_backend_utils")
    vars(stand_in).update(
        TritonError=TritonError,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
        Tensor=lambda name, values: SimpleNamespace(name=name, values=values),
        InferenceResponse=lambda output_tensors, error=None: SimpleNamespace(
            tensors=output_tensors, error=error
        ),
        get_input_tensor_by_name=lambda request, name: SimpleNamespace(as_numpy=lambda: request.inputs[name]),
    )
    sys.modules[stand_in.__name__] = stand_in
    spec = importlib.util.spec_from_file_location("model", FOLDER / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = re.findall(
        r'key: "(\w+)" value: \{ string_value: "(\w+)" }', (FOLDER / "config.pbtxt").read_text()
    )
    parameters = {name: {"string_value": value} for name, value in settings}
    model = module.TritonPythonModel()
    model.initialize({"model_config": json.dumps({"parameters": parameters})})
    yield model
    model.finalize()
    del sys.modules[stand_in.__name__]


def request(content):
    sender = Sender()
    audio = np.frombuffer(content, dtype=np.uint8)
    return SimpleNamespace(inputs={"AUDIO": audio}, get_response_sender=lambda: sender), sender


def test_each_request_gets_its_pieces_or_its_error_and_one_end(model):
    (good, pieces), (bad, reason) = request(SIX.read_bytes()), request(b"no audio")
    asyncio.run(model.execute([good, bad]))
    texts = [tensor.values[0].decode() for one in pieces.sent for tensor in one.tensors]
    assert "".join(texts) == TEXT
    assert len(texts) > 1
    assert [one.error.args[1] for one in reason.sent] == [TritonError.INVALID_ARG]
    for flags in (pieces.flags, reason.flags):
        assert flags[-1] == FINAL
        assert set(flags[:-1]) <= {0}


def test_a_client_that_leaves_cancels_its_request(model):
    one, sender = request(digits(200))
    sender.left = True
    asyncio.run(model.execute([one]))
    assert model.engine.stats().cancelled == 1
    assert sender.flags[-1] == FINAL


def test_the_configuration_names_the_tensors_of_the_model():
    named = set(
        re.findall(r'(?:Tensor|by_name)\((?:request, )?"(\w+)"', (FOLDER / "1" / "model.py").read_text())
    )
    assert set(re.findall(r'name: "([A-Z]+)"', (FOLDER / "config.pbtxt").read_text())) == named
