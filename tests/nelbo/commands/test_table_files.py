"""FILE as the commands take it."""

import gzip
import io
import sys
from pathlib import Path

import pytest

from nelbo.commands.table_files import TableFile
from nelbo.files import open_table
from tests.nelbo.files.tables import rows_of, saved

LINES = gzip.compress(b'{"a": 1}\n{"a": 2}\n')


def test_a_compressed_pipe_is_copied_under_the_suffix_of_its_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES)))
    with TableFile("-").on_disk() as path:
        assert path.name == "stdin.jsonl"
        assert rows_of(open_table(path)) == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("name", ["table.jsonl.gz", "table.JSONL.GZ"])
def test_a_compressed_file_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    with TableFile(str(saved(tmp_path / name, LINES))).on_disk() as path:
        assert path == tmp_path / name


def test_a_compressed_file_of_another_name_is_read_in_the_format_given(tmp_path: Path) -> None:
    with TableFile(str(saved(tmp_path / "backup.old", LINES)), "jsonl").on_disk() as path:
        assert rows_of(open_table(path)) == [{"a": "1"}, {"a": "2"}]
