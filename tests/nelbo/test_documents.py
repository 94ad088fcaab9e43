"""What documents say is so: each line of their tables is run, what they name is there, and figures
agree."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nelbo import cells
from nelbo.encoding import encode
from nelbo.files import open_table
from nelbo.schema import Column, Schema
from nelbo.schema_inference import infer
from tests.system.faults.__main__ import DATABASES, EACH, KILLS_ALONE, rounds_of
from tests.system.faults.campaign import weighted
from tests.system.faults.kinds import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "columns.md").read_text("utf-8")
FOLDERS = ("api", "deploy", "docs", "nelbo", "tests", "training", "worker")


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
    assert explained == set(Column.model_fields) - {"rarer", "clusters"}


def test_every_test_that_the_page_on_security_names_is_there() -> None:
    page = Path("docs/explanation/security.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page)
    assert len(named) > 50
    for file, name in named:
        assert not name or re.search(
            rf"^(async )?def {name}\(", Path(file).read_text(), re.MULTILINE
        ), f"{file}::{name}"


def documents_and_sources() -> list[Path]:
    return [
        *ROOT.glob("*.md"),
        ROOT / "Makefile",
        *(
            path
            for folder in FOLDERS
            for ending in ("*.md", "*.py")
            for path in (ROOT / folder).rglob(ending)
        ),
    ]


def test_every_file_that_documents_and_sources_name_is_there() -> None:
    file = re.compile(rf"(?<![\w/.{{}}])(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:md|py|sql)\b")
    named = {
        (path.relative_to(ROOT), name)
        for path in documents_and_sources()
        for name in file.findall(path.read_text("utf-8"))
    }
    assert len(named) > 80
    assert [(path, name) for path, name in named if not (ROOT / name).is_file()] == []


def test_the_number_of_faults_is_the_same_wherever_it_is_named() -> None:
    faults = sum(
        rounds_of(EACH, DATABASES) * len(weighted(KINDS, database)) + KILLS_ALONE
        for database in DATABASES
    )
    for name in ("Makefile", "CONTRIBUTING.md", "docs/explanation/jobs.md"):
        assert re.findall(r"\b(\d+) faults of", (ROOT / name).read_text("utf-8")) == [str(faults)]
