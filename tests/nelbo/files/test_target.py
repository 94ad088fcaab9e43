"""Where a file goes: links are followed, pipes and devices written, regular files replaced whole
with what is theirs kept."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nelbo.errors import InvalidInput, NelboError, NotFound, Unavailable
from nelbo.files import check_folder, check_target, is_stream, open_target
from tests.nelbo.files.tables import file_size

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def write(path: Path, content: bytes = b"new") -> None:
    check_target(path)
    with open_target(path) as stream:
        stream.write(content)


def test_the_file_behind_a_chain_of_links_is_written_and_the_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real.csv").write_bytes(b"old")
    (tmp_path / "second").symlink_to("real.csv")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    write(tmp_path / "first")
    assert (tmp_path / "real.csv").read_bytes() == b"new"
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()


def test_a_link_to_nothing_makes_the_file_it_names(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to("far/real.csv")
    write(tmp_path / "link")
    assert (tmp_path / "far" / "real.csv").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    path.chmod(mode)
    write(path)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", mode)


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "table.csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "table.csv").stat().st_mode) == 0o640


@root_only
def test_a_file_of_someone_else_that_root_replaces_stays_theirs(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"old")
    os.chown(path, 12_345, 23_456)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12_345, 23_456)


@pytest.mark.parametrize("content", [b"longer than before", b"x", b""])
def test_all_names_of_a_file_show_the_new_content(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old rows")
    os.link(tmp_path / "one", tmp_path / "other")
    write(tmp_path / "one", content)
    assert (tmp_path / "other").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]


def _fail_in_the_middle(path: Path) -> None:
    with open_target(path) as stream:
        stream.write(b"new")
        raise RuntimeError


def test_a_file_with_other_names_stays_as_it_was_where_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"old")
    os.link(tmp_path / "one", tmp_path / "other")
    with pytest.raises(RuntimeError):
        _fail_in_the_middle(tmp_path / "one")
    assert (tmp_path / "other").read_bytes() == b"old"


def test_a_named_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe, b"x" * 200_000)
    reader.join()
    assert got == [b"x" * 200_000]
    assert pipe.is_fifo()


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    write(Path(os.devnull))
    (tmp_path / "nowhere").symlink_to(os.devnull)
    write(tmp_path / "nowhere")
    assert Path(os.devnull).is_char_device()
    assert (tmp_path / "nowhere").is_symlink()


def test_a_full_device_is_an_error_that_names_it() -> None:
    with pytest.raises(Unavailable, match="/dev/full cannot be written: No space left"):
        write(Path("/dev/full"))


@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"])
def test_an_open_descriptor_is_written_where_it_stands(folder: str, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        log.write(b"before ")
        log.flush()
        write(Path(folder, str(log.fileno())), b"rows ")
        log.write(b"after")
    assert (tmp_path / "log").read_bytes() == b"before rows after"


def test_standard_output_by_its_path_is_written_and_not_replaced(tmp_path: Path) -> None:
    script = (
        "from nelbo.files import open_target\nwith open_target('/dev/stdout') as stream:"
        " stream.write(b'rows')"
    )
    with (tmp_path / "out").open("ab") as out:
        out.write(b"before ")
        out.flush()
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == b"before rows"
    assert Path("/dev/stdout").is_symlink()


def test_a_socket_and_a_folder_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as heard:
        heard.bind(str(tmp_path / "socket"))
        with pytest.raises(InvalidInput, match="is a socket"):
            write(tmp_path / "socket")
    with pytest.raises(InvalidInput, match="is a folder"):
        write(tmp_path)


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_bytes(b"")
    return folder / "file" / "table.csv"


def _link_into_nowhere(folder: Path) -> Path:
    (folder / "link").symlink_to("gone/table.csv")
    return folder / "link"


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        (
            lambda folder: folder / "gone" / "table.csv",
            NotFound,
            "no folder .*gone to write table.csv",
        ),
        (_link_into_nowhere, NotFound, "no folder .*gone to write table.csv"),
        (_below_a_file, NotFound, "Not a directory"),
        (lambda folder: folder / ("x" * 300), InvalidInput, "too long"),
        (_loop, InvalidInput, "symbolic links"),
    ],
)
def test_what_nothing_can_be_written_to_is_found_before_the_work(
    path: Callable[[Path], Path], error: type[NelboError], words: str, tmp_path: Path
) -> None:
    target = path(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=words):
        check_target(target)
    with pytest.raises(error, match=words), open_target(target):
        pass
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_a_file_that_may_not_grow_so_far_is_one_error_and_leaves_what_was_there(
    size: int, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_bytes(b"old")
    with (
        file_size(4_096),
        pytest.raises(Unavailable, match=r"table\.csv cannot be written: File too large"),
    ):
        write(tmp_path / "table.csv", b"x" * size)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("table.csv", b"old")
    ]


@root_only
def test_a_full_disk_takes_no_row_of_a_file_with_other_names(tmp_path: Path) -> None:
    """The copy into the file itself asks for the room first."""
    script = """
import os, sys
from pathlib import Path
from nelbo.errors import Unavailable
from nelbo.files import target
folder = Path(sys.argv[1])
(folder / "one").write_bytes(b"old")
os.link(folder / "one", folder / "other")
try:
    with target.open_target(folder / "one") as stream:
        stream.write(b"x" * 600_000)
except Unavailable as problem:
    print(problem.message, (folder / "other").read_bytes(), len(list(folder.iterdir())))
"""
    mount = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, script]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode and "unshare" in ran.stderr:
        pytest.skip("needs mount namespaces")
    assert (
        ran.stdout == f"{tmp_path / 'one'} cannot be written: No space left on device b'old' 2\n"
    ), ran.stderr


def test_a_folder_is_tried_before_the_work_and_nothing_of_the_trial_stays(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b", 1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotFound, match="Not a directory"):
        check_folder(tmp_path / "file" / "home", 1)
    with pytest.raises(InvalidInput, match="too long"):
        check_folder(tmp_path / ("x" * 300) / "home", 1)
    with pytest.raises(Unavailable, match="make room"):
        check_folder(tmp_path, 2**60)
    with file_size(4_096), pytest.raises(Unavailable, match="ulimit -f"):
        check_folder(tmp_path, 2**20)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_regular_file_and_an_absent_one_are_no_streams(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"")
    assert not is_stream(tmp_path / "1")
    assert not is_stream(tmp_path / "absent")
