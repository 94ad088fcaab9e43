"""The caller of a request: an owner by API key, or `local` while no keys are set up.

Keys are rows in SQL (`nelbo.store.keys`). A process remembers a valid key for a second, so that
every process refuses a revoked key within two. A wrong key is never remembered: an unknown id and a
wrong secret cost the same query.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from queue import Full, Queue
from threading import Lock, Thread
from typing import Literal

from nelbo import logs
from nelbo.audit import ITSELF
from nelbo.errors import NotAuthenticated, Unavailable
from nelbo.store import keys
from nelbo.store.keys import KEY, KeyLine, Scope, StoredKey, key_digest
from nelbo.store.session import Database

log = logs.get(__name__)
LOCAL = "local"
REMEMBER_S = 1.0
"""Seconds for which a process remembers a valid key."""
REMEMBERED = 4_096
"""Maximum number of keys that one process remembers."""
IDLE_S = 60.0
"""Minimum number of seconds between two records of a key's last use."""
_NOBODY = key_digest("")


@dataclass(frozen=True)
class Caller:
    """The sender of a request. `key` is the id of their key, or None while no keys are set up."""

    owner: str
    scope: Scope
    key: str | None = None


EVERYONE = Caller(LOCAL, "admin")
"""The caller while no keys are set up. The service then answers on this machine only."""


class ApiKeys:
    """The API keys of the service.

    file: a keys file of an older Nelbo. Each of its lines is stored as a key once. Such a key ends
    when its line is deleted or by `nelbo keys revoke`, whichever comes first.
    """

    def __init__(
        self, database: Database, file: Path | None = None, required: bool = False
    ) -> None:
        self._database = database
        self._file = None if file is None else KeysFile(database, file)
        self._required = required or file is not None
        self._open_until = 0.0
        self._remembered: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        """By the digest of the header, so that the memory holds no key and nothing like one."""
        self._lock = Lock()
        self._listed: frozenset[str] = frozenset()
        self._listed_until = 0.0
        self._list_lock = Lock()
        self._uses = _LastUses(database)

    def close(self) -> None:
        self._uses.close()

    def known_need(self) -> bool | None:
        """Whether a request needs a key, if this process knows it; None: `needed` must be asked."""
        if self._required:
            return True
        return False if time.monotonic() < self._open_until else None

    def needed(self) -> bool:
        """Whether a request needs a key: if a setting says so, or once a key was ever created."""
        if self.known_need() is None:
            asked_at = time.monotonic()
            if keys.any_was_created(self._database):
                self._required = True
            else:
                self._open_until = asked_at + REMEMBER_S
        return self._required

    def state(self) -> Literal["none", "ok", "degraded"]:
        """The state of the keys, for the readiness probe.

        none: no key is needed; degraded: a part of the keys file cannot be read. Raises Unavailable
        if the database does not answer.
        """
        if not self.needed():
            return "none"
        keys.any_was_created(self._database)
        return "ok" if self._file is None or self._file.is_whole() else "degraded"

    def remembered(self, authorization: str | None) -> Caller | None:
        """The caller, if this process remembers the key. It never waits for the database."""
        if not self._required:
            return EVERYONE if self.known_need() is False else None
        with self._lock:
            caller, until = self._remembered.get(key_digest(authorization or ""), (None, 0.0))
        return caller if time.monotonic() < until else None

    def is_listed(self, authorization: str | None) -> bool:
        """Whether this is a live key.

        The list of live keys is read at most once a second, however many requests ask.
        """
        key = authorization.partition(" ")[2].strip() if authorization else ""
        with self._list_lock:
            if time.monotonic() >= self._listed_until:
                asked_at = time.monotonic()
                self._listed = keys.live_key_digests(self._database)
                self._listed_until = asked_at + REMEMBER_S
            return key_digest(key) in self._listed

    def look_up(self, authorization: str | None) -> Caller:
        """The caller, by a query.

        Raises NotAuthenticated if the key is not live, Unavailable if the database does not answer.
        """
        asked_at = time.monotonic()
        if not self.needed():
            return EVERYONE
        caller = self._find(authorization)
        self._remember(authorization, caller, asked_at + REMEMBER_S)
        return caller

    def _find(self, authorization: str | None) -> Caller:
        key = _bearer(authorization)
        match = KEY.fullmatch(key)
        if match is None:
            raise _nobody()
        lines = {} if self._file is None else self._file.lines()
        stored = keys.find(self._database, match[1])
        if lines is None and (stored is None or stored.from_file):
            raise Unavailable(
                "the service cannot read all of its keys; try again, or ask whoever runs it",
                retry_after=5,
            )
        # An unknown id is compared too, so that the time does not reveal which ids exist.
        same = compare_digest(key_digest(key), stored.digest if stored else _NOBODY)
        if stored is None or not same:
            raise _nobody()
        _check_live(stored)
        line = (lines or {}).get(stored.id)
        if self._file is not None and stored.from_file and line != _line_of(stored):
            raise NotAuthenticated(
                "this API key was removed from the keys file; ask whoever runs the service for a"
                " new one"
            )
        if stored.idle_s is None or stored.idle_s > IDLE_S:
            self._uses.offer(stored.id)
        return Caller(stored.owner, stored.scope, stored.id)

    def _remember(self, authorization: str | None, caller: Caller, until: float) -> None:
        header = key_digest(authorization or "")
        with self._lock:
            self._remembered[header] = (caller, until)
            self._remembered.move_to_end(header)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)


def prefix_of(authorization: str) -> str:
    """The prefix of the key in a header, for the log.

    It is empty if the header holds no key, since that may be a part of one.
    """
    match = KEY.fullmatch(authorization.partition(" ")[2].strip())
    return f"nb_{match[1]}" if match else ""


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise NotAuthenticated(
            "this service wants an API key: send the header Authorization: Bearer nb_…"
        )
    return key.strip()


def _nobody() -> NotAuthenticated:
    return NotAuthenticated("nobody holds this API key; ask whoever runs the service for one")


def _line_of(stored: StoredKey) -> KeyLine:
    return KeyLine(stored.id, stored.owner, stored.digest)


def _check_live(stored: StoredKey) -> None:
    """Raise NotAuthenticated if the key has ended. Its holder may know the reason."""
    if stored.state == "revoked":
        raise NotAuthenticated(
            "this API key was revoked; ask whoever runs the service for a new one"
        )
    if stored.state == "expired":
        raise NotAuthenticated(
            "this API key has expired; ask whoever runs the service for a new one"
        )


class KeysFile:
    """A keys file of an older Nelbo.

    It is read for each request, because an editor may replace it. New lines are stored as keys. A
    line that is not a key is left out.
    """

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path
        self._lock = Lock()
        self._content: bytes | None = None
        self._lines: dict[str, KeyLine] = {}
        self._bad: list[int] = []
        try:
            path.read_bytes()
        except OSError as problem:
            raise Unavailable(f"the keys file {path} cannot be read: {problem.strerror}") from None

    def is_whole(self) -> bool:
        """Whether the file can be read and each of its lines is a key."""
        return self.lines() is not None and not self._bad

    def lines(self) -> dict[str, KeyLine] | None:
        """The current lines by the id of their key; None if the file cannot be read."""
        with self._lock:
            try:
                content = self._path.read_bytes()
            except OSError as problem:
                if self._content is not None:
                    log.error("the keys file cannot be read any more", problem=problem.strerror)
                self._content = None
                return None
            if content != self._content:
                self._store(content)
                self._content = content
            return self._lines

    def _store(self, content: bytes) -> None:
        lines, bad = keys.parse_lines(content)
        stored = keys.import_lines(self._database, lines, ITSELF)
        self._lines = {line.id: line for line in lines}
        self._bad = bad
        if bad:
            log.error("lines of the keys file are no keys and are left out", lines=bad[:20])
        if stored:
            log.warning(
                "keys of the keys file are in the database now; `nelbo keys list` shows them",
                keys=stored,
            )


class _LastUses:
    """A thread that records when keys were last used.

    No request waits for it. A lost record does no harm.
    """

    def __init__(self, database: Database, capacity: int = 1_000) -> None:
        self._database = database
        self._queue: Queue[str | None] = Queue(capacity)
        self._thread = Thread(target=self._run, name="last-uses", daemon=True)
        self._thread.start()

    def offer(self, key_id: str) -> None:
        try:
            self._queue.put_nowait(key_id)
        except Full:
            log.warning("the last use of a key is not written down, too many wait", key=key_id)

    def close(self, timeout_s: float = 2.0) -> None:
        try:
            self._queue.put_nowait(None)
        except Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (key_id := self._queue.get()) is not None:
            try:
                keys.mark_used(self._database, key_id)
            except Exception:
                # Whatever the database's library raises, the next one may work.
                log.warning(
                    "the last use of a key is not written down",
                    key=key_id,
                    exc_info=True,
                )
