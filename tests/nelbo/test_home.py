"""The record of a running `nelbo up` in the data folder."""

import os
import stat
from pathlib import Path

import pytest

from nelbo.home import UP_RECORD, RunningUp, is_alive, record_up, running_up


def ended_process() -> int:
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process


def test_what_was_recorded_is_read_again_while_its_process_runs(tmp_path: Path) -> None:
    assert running_up(tmp_path) is None
    up = RunningUp(
        url="http://127.0.0.1:8765", pid=os.getpid(), database="sqlite:///a.db", broker="redis://b"
    )
    record_up(tmp_path, up)
    assert running_up(tmp_path) == up
    assert [path.name for path in tmp_path.iterdir()] == [UP_RECORD]


def test_the_record_of_a_process_that_ended_counts_no_more(tmp_path: Path) -> None:
    ended = ended_process()
    record_up(tmp_path, RunningUp(url="http://127.0.0.1:8765", pid=ended))
    assert not is_alive(ended)
    assert running_up(tmp_path) is None


def test_only_its_owner_can_read_the_record(tmp_path: Path) -> None:
    record_up(tmp_path, RunningUp(url="http://127.0.0.1:8765", pid=os.getpid()))
    assert stat.S_IMODE((tmp_path / UP_RECORD).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["{", "[]", '{"pid": "x"}', '{"url": "http://a", "pid": null}'])
def test_a_damaged_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / UP_RECORD).write_text(text)
    assert running_up(tmp_path) is None
