"""Engines that failed, and models that are loaded at once, as the soak found them."""

import gc
import threading
import time
import weakref

import pytest
import torch
from fault_sites import Injector
from torch.nn.modules.module import register_module_parameter_registration_hook
from watchdog import within

import tritone

DECODE = "tritone.models.speech_to_text.model:Speech2TextForConditionalGeneration.decode"


def test_a_failed_engine_goes_away_though_its_error_was_raised_beside_it(subjects):
    def fail() -> weakref.ref[tritone.Engine]:
        engine = subjects["cores"].open()
        with Injector(DECODE, "SystemExit", lambda *_: True).active(), pytest.raises(RuntimeError):
            within(20, engine.submit(subjects["cores"].sources[0]).result, 20)
        with pytest.raises(RuntimeError, match="stopped on an error"):
            engine.submit(subjects["cores"].sources[0]).result(20)
        return weakref.ref(engine)

    failed = fail()
    until = time.monotonic() + 10
    while time.monotonic() < until and (failed() is not None or of_an_engine()):
        gc.collect()
        time.sleep(0.05)
    assert failed() is None
    assert not of_an_engine()


def of_an_engine() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tritone-")]


def test_a_model_may_be_loaded_while_another_thread_makes_one(subjects):
    def load_beside(*_):
        if not loaded:
            loaded.append(True)
            thread = threading.Thread(target=tritone.AutoModelForCTC.from_pretrained, args=(folder,))
            thread.start()
            thread.join(60)

    folder, loaded = subjects["ctc"].arguments[-1], []
    # torch goes on to the second after the first has changed the table, if it does.
    hooks = [register_module_parameter_registration_hook(hook) for hook in (load_beside, lambda *_: None)]
    try:
        torch.nn.Linear(2, 2)
    finally:
        for hook in hooks:
            hook.remove()
    assert loaded
