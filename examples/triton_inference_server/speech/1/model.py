"""Engine within Triton Inference Server's Python backend (24.04 or later), decoupled: text as it is decoded.

Not run in the server: written by python_backend's documentation, tested against a stand-in of its module.
"""

import asyncio
import json

import numpy as np
import triton_python_backend_utils as pb_utils

import tritone

CHECK_SECONDS = 0.1  # between looks at whether a client has left


class TritonPythonModel:
    """Model of the backend; its event loop runs `execute` of many requests side by side."""

    def initialize(self, args: dict[str, str]) -> None:
        given = json.loads(args["model_config"])["parameters"]
        settings = {name: value["string_value"] for name, value in given.items()}
        config = tritone.EngineConfig(max_waiting=int(settings["max_waiting"]))
        self.engine = tritone.AsyncEngine(settings["model"], config=config)

    async def execute(self, requests: list["pb_utils.InferenceRequest"]) -> None:
        await asyncio.gather(*map(self.transcribe, requests))

    async def transcribe(self, request: "pb_utils.InferenceRequest") -> None:
        """Send the pieces of one recording's text, or its error."""
        sender = request.get_response_sender()
        error, watch = None, None
        try:
            audio = pb_utils.get_input_tensor_by_name(request, "AUDIO").as_numpy()
            handle = self.engine.submit(audio.tobytes())
            watch = asyncio.create_task(cancel_if_left(sender, handle))
            async for piece in handle:
                text = pb_utils.Tensor("TEXT", np.array([piece.encode()], dtype=np.object_))
                sender.send(pb_utils.InferenceResponse(output_tensors=[text]))
        except tritone.AudioError as raised:
            error = pb_utils.TritonError(str(raised), pb_utils.TritonError.INVALID_ARG)
        except tritone.QueueFullError as raised:
            error = pb_utils.TritonError(str(raised), pb_utils.TritonError.UNAVAILABLE)
        except Exception as raised:
            error = pb_utils.TritonError(str(raised), pb_utils.TritonError.INTERNAL)
        finally:
            if watch is not None:
                watch.cancel()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        if error is None:
            sender.send(flags=final)
        else:
            sender.send(pb_utils.InferenceResponse(output_tensors=[], error=error), flags=final)

    def finalize(self) -> None:
        self.engine.engine.close(cancel=True)


async def cancel_if_left(sender: "pb_utils.InferenceResponseSender", handle: tritone.Handle) -> None:
    """Cancel a request whose client has left: the backend can be asked, and calls nothing back."""
    while not sender.is_cancelled():
        await asyncio.sleep(CHECK_SECONDS)
    handle.cancel()
