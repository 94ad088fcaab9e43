"""A host's file says that its worker is well while it is young, and each host has a file of its
own."""

import os
import socket
import time
from pathlib import Path

import pytest

from worker import health


def test_a_beat_makes_the_file_young_again(tmp_path: Path) -> None:
    health.touch(tmp_path)
    assert health.health_file(tmp_path) == tmp_path / "health" / socket.gethostname()
    os.utime(health.health_file(tmp_path), (0, 0))
    health.touch(tmp_path)
    assert time.time() - health.health_file(tmp_path).stat().st_mtime < 60


def test_hosts_do_not_speak_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    health.touch(tmp_path)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert not health.health_file(tmp_path).exists()


def test_the_file_of_a_host_that_is_long_gone_is_removed(tmp_path: Path) -> None:
    health.touch(tmp_path)
    gone, silent = (tmp_path / "health" / name for name in ("gone", "silent"))
    for file, age_s in ((gone, health.FORGET_S + 60), (silent, health.FORGET_S - 60)):
        file.touch()
        os.utime(file, (time.time() - age_s,) * 2)
    health.touch(tmp_path)
    assert (gone.exists(), silent.exists()) == (False, True)


def test_a_folder_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "health").touch()
    health.touch(tmp_path)
    assert "health file not written" in caplog.text
