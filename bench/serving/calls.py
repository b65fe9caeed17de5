"""Requests as the load generator sends them: what is asked, and the bytes of it. Standard library alone."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

BOUNDARY = "condu-bench-0123456789abcdef"

Wire = Literal["multipart", "base64"]
"""`multipart` is the service's own form; `base64` is the JSON that litserve's documents show."""


@dataclass(frozen=True)
class Call:
    """One request.

    Attributes:
        path: Of the URL.
        fields: Beside the images; a list is sent as a repeated field.
        images: Numbers of photographs.
        wire: How it is written.
        headers: Beside those that every request has.
    """

    path: str
    images: tuple[int, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    wire: Wire = "multipart"
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(
            values["path"], tuple(values["images"]), values["fields"], values["wire"], values["headers"]
        )

    def encode(self, photographs: Sequence[bytes], host: str) -> bytes:
        """The request, head and body, as HTTP/1.1 has it."""
        pictures = [photographs[index] for index in self.images]
        if self.wire == "multipart":
            content_type, body = f"multipart/form-data; boundary={BOUNDARY}", _form(self.fields, pictures)
        else:
            texts = [base64.b64encode(picture).decode() for picture in pictures]
            content_type, body = "application/json", json.dumps({**self.fields, "images": texts}).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
        )
        return head.encode() + body


def _form(fields: Mapping[str, Any], pictures: Sequence[bytes]) -> bytes:
    parts = []
    for name, value in fields.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            disposition = f'Content-Disposition: form-data; name="{name}"'
            parts.append(f"--{BOUNDARY}\r\n{disposition}\r\n\r\n{each}\r\n".encode())
    for picture in pictures:
        disposition = 'Content-Disposition: form-data; name="images"; filename="photograph.jpg"'
        parts.append(f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n".encode())
        parts += [picture, b"\r\n"]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
