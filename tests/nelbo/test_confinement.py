"""A confined process opens what it may, and nothing else: no file, no network, no program, no other
process, no more memory."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nelbo.confinement import REFUSED, measures

BEGIN = """
import os, resource, signal, socket, sys, threading
from pathlib import Path
from nelbo.confinement import confine
readable, writable, port = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
confine(memory_mib=512, read=[readable], write=[writable])
"""
needs_paths = pytest.mark.skipif(
    not measures().landlock, reason="this kernel has no Landlock, so nothing guards files here"
)
needs_calls = pytest.mark.skipif(
    not measures().seccomp, reason="this kernel has no seccomp filters, so nothing guards calls"
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    readable, writable = tmp_path / "readable", tmp_path / "writable"
    readable.mkdir()
    writable.mkdir()
    (readable / "table").write_text("rows")
    (tmp_path / "secret").write_text("password")
    return readable, writable


def attempt(folders: tuple[Path, Path], statement: str, port: int = 1) -> str:
    """What a confined process says of a statement: "done", or the name of the error that it
    raised."""
    program = BEGIN + textwrap.dedent(
        f"""
        try:
            {statement}
            print("done")
        except BaseException as problem:
            print(type(problem).__name__)
        """
    )
    command = [sys.executable, "-c", program, *map(str, folders), str(port)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_a_package_is_loaded_late_from_any_folder_of_installed_ones(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "late.py").write_text("print('loaded')")
    program = (
        "from nelbo.confinement import CODE, confine; confine(memory_mib=512, read=CODE);"
        " import late"
    )
    places = os.pathsep.join([*sys.path, str(tmp_path / name)])
    environment = os.environ | {"PYTHONPATH": places}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert run.stdout == "loaded\n", run.stderr


ALLOWED = {
    "read a named file": "(readable / 'table').read_text()",
    "list a named folder": "os.listdir(readable)",
    "write into a named folder": "(writable / 'part').write_text('rows')",
    "replace a file there": "(writable / 'new').write_text('a'); (writable /"
    " 'new').replace(writable / 'old')",
    "start a thread": "thread = threading.Thread(target=print); thread.start(); thread.join()",
    "hold 200 MiB": "bytes(200 * 2**20)",
    "ask for its own limits": "resource.getrlimit(resource.RLIMIT_AS)",
}


@pytest.mark.parametrize("what", ALLOWED)
def test_a_confined_process_may(folders: tuple[Path, Path], what: str) -> None:
    assert attempt(folders, ALLOWED[what]) == "done"


FILES = {
    "read a file beside the named ones": "(readable.parent / 'secret').read_text()",
    "read it through a link": "(writable / 'link').symlink_to('../secret'); (writable /"
    " 'link').read_text()",
    "read it as a hard link": "os.link(readable.parent / 'secret', writable / 'link')",
    "read a file of the system": "Path('/etc/passwd').read_text()",
    "read the environment of its parent": "Path(f'/proc/{os.getppid()}/environ').read_bytes()",
    "read its own environment": "Path('/proc/self/environ').read_bytes()",
    "list a folder beside the named ones": "os.listdir(readable.parent)",
    "write where it may only read": "(readable / 'more').write_text('x')",
    "change what it may only read": "(readable / 'table').write_text('x')",
    "delete what it may only read": "(readable / 'table').unlink()",
    "write into a folder that it did not name": "(readable.parent / 'more').write_text('x')",
}


@needs_paths
@pytest.mark.parametrize("what", FILES)
def test_a_confined_process_may_not_touch_files(folders: tuple[Path, Path], what: str) -> None:
    assert attempt(folders, FILES[what]) in ("PermissionError", "OSError")


CALLS = {
    "open a socket": "socket.socket()",
    "open a socket of the machine": "socket.socket(socket.AF_UNIX)",
    "open a pair of sockets": "socket.socketpair()",
    "become another program": "os.execv('/bin/true', ['true'])",
    "start a process": "os.fork()",
    "start a program": "os.posix_spawn('/bin/true', ['true'], {})",
    "send a signal to its parent": "os.kill(os.getppid(), signal.SIGTERM)",
    "send a signal to itself": "os.kill(os.getpid(), signal.SIGTERM)",
    "change the limits of its parent": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (9,"
    " 9))",
    "enter another namespace": "os.unshare(os.CLONE_NEWUSER) if hasattr(os, 'unshare') else"
    " os.chroot('/')",
}


@needs_calls
@pytest.mark.parametrize("what", CALLS)
def test_a_confined_process_may_not(folders: tuple[Path, Path], what: str) -> None:
    assert attempt(folders, CALLS[what]) == "PermissionError"


@needs_calls
def test_the_threads_of_a_confined_process_reach_no_network(folders: tuple[Path, Path]) -> None:
    reach = "socket.create_connection(('127.0.0.1', port), 5)"
    in_thread = (
        f"reached = []; thread = threading.Thread(target=lambda: reached.append({reach}));"
        " threading.excepthook = lambda problem: None; thread.start(); thread.join(); reached[0]"
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert attempt(folders, in_thread, server.getsockname()[1]) == "IndexError"


def test_a_confined_process_gets_no_more_memory(folders: tuple[Path, Path]) -> None:
    assert attempt(folders, "bytes(600 * 2**20)") == "MemoryError"


def test_the_working_directory_of_a_confined_process_is_empty_and_gone(
    folders: tuple[Path, Path],
) -> None:
    assert attempt(folders, "os.listdir('.') and 1 / 0") in ("done", "PermissionError")
    assert attempt(folders, "Path('file').write_text('x')") in (
        "FileNotFoundError",
        "PermissionError",
    )


def test_the_numbers_of_system_calls_are_those_of_this_machine() -> None:
    header = Path(f"/usr/include/{os.uname().machine}-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the system's headers are not installed here")
    lines = dict(
        line.split()[1:3]
        for line in header.read_text().splitlines()
        if line.startswith("#define __NR_")
    )
    for name, (number, _) in REFUSED.items():
        assert lines[f"__NR_{name}"] == str(number), name
