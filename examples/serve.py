"""Serve transcripts over HTTP: POST a recording, get JSON. Requests are decoded together.

    python examples/serve.py [PORT] &
    curl --data-binary @samples/digits/six_digits_16k.flac localhost:8000

A sketch of an integration, with neither authentication nor limits: keep it off public networks.
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import soundfile

import tritone


def main(port: str = "8000") -> None:
    engine = tritone.Engine("digits")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            try:
                waveform, rate = soundfile.read(io.BytesIO(body), dtype="float32")
                result = engine.submit(waveform, sampling_rate=rate, stream=False).result()  # thread-safe
                status, reply = 200, {"text": result.text, "seconds": result.duration}
            except (soundfile.LibsndfileError, ValueError) as error:
                status, reply = 400, {"error": str(error)}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

    with engine, ThreadingHTTPServer(("127.0.0.1", int(port)), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
