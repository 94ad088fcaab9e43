"""A proxy before a server's Unix socket: it drops what it should pass on, or a COMMIT's answer, and
tells nobody."""

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 1 << 16
RESULTS = re.compile(rb"INSERT INTO (score_chunk|table_chunk)")


@dataclass(eq=False)
class Link:
    """A connection through the proxy. `silent`: half-open, both ends think that the other one is
    there."""

    client: socket.socket
    server: socket.socket
    silent: bool = False
    speech: "Speech" = field(default_factory=lambda: Speech())
    cut: bool = False


@dataclass(eq=False)
class Proxy:
    """Passes bytes on. `cuts` COMMITs to come lose their answer: the server did them, the client
    never learns so."""

    upstream: Path
    listener: socket.socket
    reads_speech: bool
    """It is PostgreSQL that talks here."""
    cuts: int = 0
    only_results: bool = False
    links: set[Link] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def drop(self) -> int:
        """Nothing passes any more through the connections that there are; new ones work. How many
        there were."""
        with self._lock:
            for link in self.links:
                link.silent = True
            return len(self.links)

    def cut_commit(self, only_results: bool) -> None:
        """Of the next transaction; of one that stores results, if `only_results`."""
        with self._lock:
            self.cuts, self.only_results = 1, only_results

    def close(self) -> None:
        # Wakes the thread that waits for the next connection.
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            for link in self.links:
                link.client.close()
                link.server.close()

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with (
            closing(client),
            closing(socket.socket(socket.AF_UNIX)) as server,
            suppress(OSError, ValueError),
        ):
            server.connect(str(self.upstream))
            link = Link(client, server)
            with self._lock:
                self.links.add(link)
            try:
                while self._pass_on(link):
                    pass
            finally:
                with self._lock:
                    self.links.discard(link)

    def _pass_on(self, link: Link) -> bool:
        """What came from either end goes to the other; False where the connection is over."""
        for source in select.select([link.client, link.server], [], [])[0]:
            target = link.server if source is link.client else link.client
            content = source.recv(BLOCK)
            if link.silent:
                if not content:
                    # The other end keeps what it believes to be a connection.
                    source.close()
                    while target.recv(BLOCK):
                        pass
                    return False
                continue
            if not content or (link.cut and source is link.server):
                return False
            if source is link.client and self.reads_speech:
                link.cut |= self._to_cut(link.speech.hear(content))
            target.sendall(content)
        return True

    def _to_cut(self, commits: list[bool]) -> bool:
        with self._lock:
            meant = bool(self.cuts) and any(storing or not self.only_results for storing in commits)
            self.cuts -= meant
            return meant


class Speech:
    """What a client of PostgreSQL says: finds its COMMITs, and whether results were stored in the
    transaction."""

    def __init__(self) -> None:
        self._rest, self._begun, self._storing = b"", False, False
        self._statements: dict[bytes, bool] = {}

    def hear(self, content: bytes) -> list[bool]:
        """For each COMMIT in these bytes, whether its transaction stored results."""
        return [
            storing
            for kind, body in self._messages(content)
            for storing in self._understand(kind, body)
        ]

    def _understand(self, kind: bytes, body: bytes) -> Iterator[bool]:
        match kind:
            case b"P":
                name, _, statement = body.partition(b"\0")
                self._statements[name] = bool(RESULTS.search(statement))
            case b"B":
                self._storing |= self._statements.get(body.split(b"\0", 2)[1], False)
            case b"Q":
                if body.startswith(b"COMMIT"):
                    yield self._storing
                if body.startswith((b"COMMIT", b"ROLLBACK", b"BEGIN")):
                    self._storing = False

    def _messages(self, content: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Kind and body. The first message of all has no kind."""
        self._rest += content
        while True:
            head = 1 if self._begun else 0
            if len(self._rest) < head + 4:
                return
            length = head + int.from_bytes(self._rest[head : head + 4], "big")
            if len(self._rest) < length:
                return
            message, self._rest = self._rest[:length], self._rest[length:]
            if self._begun:
                yield message[:1], message[5:]
            self._begun = True


@contextmanager
def proxy(upstream: Path, listen: Path | None = None) -> Iterator[Proxy]:
    """Before a server's socket, on a socket of its own: `listen`, or a TCP port of this machine."""
    listener = socket.socket(socket.AF_UNIX if listen else socket.AF_INET)
    listener.bind(str(listen) if listen else ("127.0.0.1", 0))
    listener.listen(64)
    made = Proxy(upstream, listener, reads_speech=upstream.name.startswith(".s.PGSQL"))
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()
