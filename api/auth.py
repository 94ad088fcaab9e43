"""Who asks: an owner by API key, or `local` for everyone where no keys are set up.

A key is `nb_<id>_<secret>`: the id finds its line in the keys file, the secret has 256 random bits. The file holds a
line `<id> <owner> <SHA-256 of the whole key, hex>` for each key; text after `#` is a comment. It never holds a key, and
it is read again when it changes, so a key can be added or taken away without a restart.

`python -P -m api.auth OWNER` makes a key: the line for the file on stdout, the key itself on stderr, once.
"""

import re
import secrets
import sys
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from threading import Lock

from nelbo.errors import InvalidInput, NotAuthenticated, Unavailable
from nelbo.utf8 import read_text

LOCAL = "local"
_KEY = re.compile(r"nb_([0-9a-f]{16})_[0-9A-Za-z_-]{43}")
_LINE = re.compile(r"([0-9a-f]{16})\s+([0-9A-Za-z][0-9A-Za-z._-]{0,63})\s+([0-9a-f]{64})")
_NOBODY = sha256(b"").hexdigest()


def make_key(owner: str) -> tuple[str, str]:
    """A new key of this owner, and the line that the keys file needs for it."""
    key_id = secrets.token_hex(8)
    key = f"nb_{key_id}_{secrets.token_urlsafe(32)}"
    line = f"{key_id} {owner} {_digest(key)}"
    if not _LINE.fullmatch(line):
        raise InvalidInput(f"{owner!r} is not an owner: use up to 64 letters, digits, dots, dashes and underscores")
    return key, line


@dataclass(frozen=True)
class _Entry:
    owner: str
    digest: str


class Keys:
    """The keys that the service knows; without a file everyone is `local`."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._entries: dict[str, _Entry] = {}
        self._lock = Lock()
        if path is not None:
            self._current()

    def known_need(self) -> bool | None:
        """Whether a request needs a key."""
        return self._path is not None

    def owner(self, authorization: str | None) -> str:
        """The owner of the key in an Authorization header; raises NotAuthenticated."""
        if self._path is None:
            return LOCAL
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise NotAuthenticated("this service wants an API key: send the header Authorization: Bearer nb_…")
        match = _KEY.fullmatch(key.strip())
        entry = self._current().get(match[1]) if match else None
        # An unknown id is compared as well, so that time does not tell which ids exist.
        known = compare_digest(_digest(key.strip()), entry.digest if entry else _NOBODY)
        if entry is None or not known:
            raise NotAuthenticated("nobody holds this API key; ask whoever runs the service for one")
        return entry.owner

    def _current(self) -> dict[str, _Entry]:
        assert self._path is not None
        try:
            stat = self._path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            with self._lock:
                if version != self._seen:
                    self._entries = _parse(read_text(self._path), self._path)
                    self._seen = version
                return self._entries
        except InvalidInput as problem:
            raise Unavailable(f"the keys file {problem.message}") from None
        except OSError as problem:
            raise Unavailable(f"the keys file {self._path} cannot be read: {problem.strerror}") from None


def _parse(text: str, path: Path) -> dict[str, _Entry]:
    entries = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise Unavailable(f"{path} line {number} is not '<id> <owner> <SHA-256 of the key>'")
        entries[match[1]] = _Entry(match[2], match[3])
    return entries


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -P -m api.auth OWNER")
    try:
        made, entry_line = make_key(sys.argv[1])
    except InvalidInput as refusal:
        sys.exit(refusal.message)
    print(entry_line)
    print(f"the key, shown only now: {made}", file=sys.stderr)
