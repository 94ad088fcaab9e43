"""Temporary folders: gone afterwards, and gone with the next tidying when whoever made them was
killed."""

import os
import time
from pathlib import Path

from worker import cache


def test_a_temporary_folder_is_gone_afterwards(tmp_path: Path) -> None:
    with cache.temporary(tmp_path) as folder:
        (folder / "upload").write_text("rows")
    assert not folder.exists()


def test_what_the_dead_left_is_removed_and_what_the_living_use_stays(tmp_path: Path) -> None:
    with cache.temporary(tmp_path) as used:
        left = used.with_name(f"{cache.PREFIX}left")
        left.mkdir()
        (left / "upload").write_text("rows")
        os.utime(left, (time.time() - 100, time.time() - 100))
        assert cache.tidy(tmp_path, old_s=50) == 1
        assert used.exists()
        assert not left.exists()


def test_there_may_be_nothing_to_tidy(tmp_path: Path) -> None:
    assert cache.tidy(tmp_path, old_s=0) == 0
