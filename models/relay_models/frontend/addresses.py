"""E-mail addresses, links, paths, file names, handles, hashtags and command-line flags -> spoken words."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from anyascii import anyascii

from relay_models.frontend.numbers import whole
from relay_models.frontend.tables import FILE_ENDINGS, SAID_ENDINGS, TOP_LEVEL_DOMAINS

_EMAIL = re.compile(r"(?:mailto:)?([\w.+-]+)@([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+)")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://)(?:[^/@\s]*@)?([^/?#:\s]*)(?::(\d+))?([^?#\s]*)\S*", re.I)
_BARE_URL = re.compile(
    r"(?:www\.)?([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.([A-Za-z]{2,}))(?::(\d+))?(/[^?#\s]*)?([?#]\S*)?", re.I
)
_SHORT_PATH = re.compile(r"(?:/[A-Za-z0-9_.-]{1,20}){1,3}/?")
_FILE = re.compile(r"[\w-]*(?:\.[\w-]+)*\.([A-Za-z0-9]{1,11})")
_PATH = re.compile(
    r"(?:~|\.{1,2}|[A-Za-z]:)?(?:[\\/][^\\/\s]+)+[\\/]?|(?:[\w.-]+[\\/]){1,}[\w.-]+\.\w+|(?:[\w.-]+/){2,}[\w.-]*"
)
_ALTERNATIVES = re.compile(r"[A-Za-z]+(?:/[A-Za-z]+)+")
_HANDLE = re.compile(r"@([A-Za-z0-9_]+)")
_HASHTAG = re.compile(r"#(\w*[^\W\d_]\w*)")
_FLAG = re.compile(r"(--?)([A-Za-z][\w-]*)(?:=(\S*))?")
_SEPARATORS: Final[dict[str, list[str]]] = {
    ".": ["dot"], "_": ["underscore"], "-": ["dash"], "+": ["plus"], "/": ["slash"], "\\": ["backslash"],
    "~": ["tilde"], ":": ["colon"],
}  # fmt: skip


class Addresses:
    """Reads what names a place or a thing on a computer.

    Args:
        pieces: Reads one part of a name.
    """

    def __init__(self, pieces: Callable[[str], list[str]]) -> None:
        self._pieces = pieces

    def read(self, core: str) -> list[str] | None:
        """Spoken words of a written word; None: it is no address."""
        for pattern, say in (
            (_EMAIL, self._email),
            (_URL, self._url),
            (_HANDLE, self._handle),
            (_HASHTAG, self._hashtag),
            (_FLAG, self._flag),
        ):
            found = pattern.fullmatch(core)
            if found:
                return say(found)
        bare = _BARE_URL.fullmatch(core)
        if bare and (core.lower().startswith("www.") or (bare[2].islower() and bare[2] in TOP_LEVEL_DOMAINS)):
            return self._address(bare[1], bare[3], bare[4])
        file = _FILE.fullmatch(core)
        if file and file[1].lower() in FILE_ENDINGS:
            return self._file(core)
        if _PATH.fullmatch(core) and not _ALTERNATIVES.fullmatch(core):
            return self._path(core)
        return None

    def _email(self, found: re.Match[str]) -> list[str]:
        local = self._split(r"([._+-])", found[1])
        return [*local, "at", *self._host(found[2])]

    def _url(self, found: re.Match[str]) -> list[str]:
        return self._address(found[1].removeprefix("www."), found[2], found[3])

    def _address(self, host: str, port: str | None, path: str | None) -> list[str]:
        """An address as one would say it: short paths in full, of long ones the host only."""
        said = self._host(host)
        if port:
            said += ["port", *whole(port).split()]
        if path and _SHORT_PATH.fullmatch(path) and len(path) <= 40:
            said += self._path(path.rstrip("/"))
        return said

    def _host(self, host: str) -> list[str]:
        *labels, top = host.split(".")
        if not labels:
            return self._pieces(host)
        if host.replace(".", "").isdigit():
            return " dot ".join(whole(part) for part in host.split(".") if part).split()
        said: list[str] = []
        for label in labels:
            said += [*self._name(label), "dot"]
        return [*said, *self._ending(top)]

    def _ending(self, ending: str) -> list[str]:
        """A top-level domain or a file's ending."""
        lower = ending.lower()
        if lower in SAID_ENDINGS:
            return SAID_ENDINGS[lower].split()
        return [lower.upper()] if lower.isalpha() and len(lower) <= 4 else self._pieces(lower)

    def _split(self, pattern: str, text: str) -> list[str]:
        """Parts of a text, and the names of what separates them."""
        return [word for part in re.split(pattern, text) for word in _SEPARATORS.get(part) or self._pieces(part)]

    def _name(self, label: str) -> list[str]:
        """Part of an address or a path; hyphens and underscores in it are said."""
        return self._split(r"([_+-])", label)

    def _file(self, name: str) -> list[str]:
        stem, _, ending = name.rpartition(".")
        return [*self._split(r"([.])", stem), "dot", *self._ending(ending)]

    def _path(self, path: str) -> list[str]:
        said: list[str] = []
        for part in re.split(r"([\\/])", path):
            file = _FILE.fullmatch(part)
            if part in _SEPARATORS:
                said += _SEPARATORS[part]
            elif file and file[1].lower() in FILE_ENDINGS:
                said += self._file(part)
            elif part:
                said += self._split(r"([.~:])", part)
        return said

    def _handle(self, found: re.Match[str]) -> list[str]:
        return ["at", *self._pieces(found[1])]

    def _hashtag(self, found: re.Match[str]) -> list[str]:
        return ["hashtag", *self._pieces(found[1] if found[1].isascii() else anyascii(found[1]))]

    def _flag(self, found: re.Match[str]) -> list[str]:
        value = ["equals", *self._pieces(found[3])] if found[3] else []
        return [*(["dash"] * len(found[1])), *self._pieces(found[2]), *value]
