"""A confined process has no more memory than it may have, and no network."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import socket, sys, threading
from nelbo.files.confinement import confine
def reach_out():
    try:
        socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()
        print("reached")
    except PermissionError:
        print("not permitted")
reach_out()
assert confine(512)
reach_out()
thread = threading.Thread(target=reach_out)
thread.start()
thread.join()
try:
    bytes(600 * 2**20)
except MemoryError:
    print("no memory")
"""


def _may_filter() -> bool:
    """Whether this kernel has seccomp filters; some sandboxes leave them out."""
    return Path("/proc/sys/kernel/seccomp/actions_avail").exists()


@pytest.mark.skipif(not _may_filter(), reason="this kernel has no seccomp filters, so nothing closes the network here")
def test_a_confined_process_and_its_threads_reach_no_network_and_get_no_more_memory() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", PROGRAM, str(server.getsockname()[1])]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.split("\n")[:-1] == ["reached", "not permitted", "not permitted", "no memory"]
