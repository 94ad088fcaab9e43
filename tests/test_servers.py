"""The tests' servers are gone when the tests are gone, however these end."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deadline import until
from tests.servers import postgresql_commands

START = """
import signal, sys
from contextlib import ExitStack
from tests.servers import postgresql_commands, running_postgres, running_valkey
signal.signal(signal.SIGINT, signal.default_int_handler)
with ExitStack() as stack:
    print(stack.enter_context(running_valkey()).folder)
    commands = postgresql_commands()
    print(stack.enter_context(running_postgres(commands)).folder if commands else "", flush=True)
    signal.pause()
"""


def servers_in(folders: list[Path]) -> list[str]:
    """Commands of the running processes that name one of the folders."""
    return [command for command in commands() if any(str(folder) in command for folder in folders)]


def commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        # A process may end between the listing and the look at it.
        with contextlib.suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_servers_end_with_the_tests_that_started_them(end: signal.Signals) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert tests.stdout is not None
    folders = [
        Path(line.strip())
        for line in (tests.stdout.readline(), tests.stdout.readline())
        if line.strip()
    ]
    assert len(folders) == 1 + (postgresql_commands() is not None)
    assert servers_in(folders)
    tests.send_signal(end)
    tests.communicate(timeout=60)
    until(lambda: not servers_in(folders), f"the servers in {folders} to end")
    until(lambda: not any(folder.exists() for folder in folders), f"{folders} to be removed")
