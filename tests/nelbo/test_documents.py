"""What docs/ says of tables is so: each line of its tables is run."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nelbo import cells
from nelbo.encoding import encode
from nelbo.files import open_table
from nelbo.inference import infer
from nelbo.schema import Column, Schema

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "columns.md").read_text("utf-8")


def table_under(heading: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read(values: list[str], folder: Path) -> tuple[Column, pa.RecordBatch]:
    path = folder / "table.csv"
    lines = ["a;b", *(f"{value};x{at % 2}" for at, value in enumerate(values * 7))]
    path.write_text("\n".join(lines).replace(";", "\t"), "utf-8")
    with open_table(path) as table:
        batch = next(table.batches())
    return infer([batch]).columns[0], batch


@pytest.mark.parametrize(
    ("given", "kind", "first"), [row[:3] for row in table_under("Cells of text")]
)
def test_a_column_is_read_as_the_page_says(
    given: str, kind: str, first: str, tmp_path: Path
) -> None:
    values = re.findall(r"`([^`]+)`", given)
    column, batch = read(values, tmp_path)
    assert column.kind == kind
    encoded = encode(batch, Schema(columns=(column,)))
    assert encoded.errors == []
    if kind == "datetime":
        assert encoded.numbers[0, 0] == np.datetime64(first, "us").astype(np.int64)
    elif kind == "boolean":
        assert encoded.codes[0, 0] == ("false", "true").index(first)
    elif kind == "categorical":
        assert cells.texts(batch.column("a"), ())[0].as_py() == first
    else:
        assert encoded.numbers[0, 0] == float(first)


def test_every_key_of_a_schema_file_is_explained() -> None:
    explained = {
        key for row in table_under("The schema file") for key in re.findall(r"`(\w+)`", row[0])
    }
    assert explained == set(Column.model_fields) - {"rarer"}


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    page = Path("docs/explanation/security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 50
    for file, name in named:
        assert not name or re.search(
            rf"^(async )?def {name}\(", Path(file).read_text(), re.MULTILINE
        ), f"{file}::{name}"
