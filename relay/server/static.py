"""The page's files, read once at the start: nothing is read from disk while people talk."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}

SECURITY_HEADERS = {
    # Same-origin scripts and sockets only; the page may also connect to another Relay given in its URL.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self' blob:; style-src 'self'; img-src 'self' data:; "
        "media-src 'self' blob:; connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self)",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of the page."""

    body: bytes
    content_type: str
    etag: str


def load_page() -> dict[str, StaticFile]:
    """URL path -> file, for every file of the page; `/` is index.html."""
    files: dict[str, StaticFile] = {}
    for entry in resources.files("relay_web").iterdir():
        if entry.is_file() and not entry.name.startswith((".", "_")):
            body = entry.read_bytes()
            suffix = "." + entry.name.rpartition(".")[2]
            kind = _TYPES.get(suffix) or mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
            files["/" + entry.name] = StaticFile(body, kind, '"' + hashlib.sha256(body).hexdigest()[:32] + '"')
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files
