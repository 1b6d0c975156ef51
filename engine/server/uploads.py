"""Multipart forms with a recording: small ones in memory, larger ones in a temporary file."""

from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from .settings import ServerSettings


@dataclass
class Upload:
    """Uploaded recording.

    Args:
        filename: name that the client gave, for messages and its suffix alone; never opened.
        content: bytes, or the path of a temporary file of the server.
        size: bytes.
    """

    filename: str
    content: bytes | Path
    size: int


@dataclass
class Form:
    """Fields of a form in their order, and the recording in its `file` field."""

    fields: list[tuple[str, str]]
    file: Upload | None

    def close(self) -> None:
        """Remove the temporary file."""


async def read_form(request: Request, settings: ServerSettings) -> Form:
    """Read the form of a request."""
    form = await request.form()
    fields, upload = [], None
    for name, value in form.multi_items():
        if isinstance(value, str):
            fields.append((name, value))
        elif name == "file":
            content = await value.read()
            upload = Upload(value.filename or "file", content, len(content))
    return Form(fields, upload)
