"""The code in README.md and docs/ runs as it stands there and prints what is said beside it.

A page's blocks of `sh` and `python` run one after the other in a folder of their own. A block of
`text` is the output of the block before it. A comment above a block may say `served`, for a block
that needs a running service, or `not run: REASON`.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from nelbo.jobs import CHUNK_TRANSITIONS, JOB_TRANSITIONS
from tests.nelbo.commands.running import environment, up

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md"))]
QUICK = {"docs/how-to/dates.md", "docs/how-to/keys.md", "docs/how-to/upgrade.md"}
"""Pages that run in `make test`, in less than a minute together; the others run in
`make test-system`."""
MOST_NOT_RUN = 9
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
INTERPRETERS = {"sh": ["bash", "-eu", "-c"], "python": [sys.executable, "-c"]}


@dataclass
class Block:
    """A piece of code, the comment above it, and the output that the page shows."""

    language: str
    code: str
    mark: str
    output: str = ""

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run: ")


def blocks_of(page: Path) -> list[Block]:
    blocks: list[Block] = []
    for match in BLOCK.finditer(page.read_text("utf-8")):
        if match["language"] == "text":
            blocks[-1].output = match["code"]
        elif match["language"] in INTERPRETERS:
            blocks.append(Block(match["language"], match["code"], match["mark"] or ""))
    return blocks


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_code() -> Iterator[object]:
    for page in PAGES:
        if any(block.runs for block in blocks_of(page)):
            marks = () if name_of(page) in QUICK else (pytest.mark.system,)
            yield pytest.param(page, id=name_of(page), marks=marks)


@pytest.fixture(scope="session")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the first tutorial, for pages that go on with it."""
    folder = tmp_path_factory.mktemp("orders")
    (folder / "docs").symlink_to(ROOT / "docs")
    code = "python docs/examples/orders.py\nnelbo train orders.csv --name orders"
    run(Block("sh", code, ""), folder, {})
    return folder / "orders"


def run(block: Block, folder: Path, variables: dict[str, str]) -> str:
    """The standard output of a block; the test fails if the block does."""
    settings = environment(folder / "home", **variables)
    settings["PATH"] = f"{Path(sys.executable).parent}:{settings['PATH']}"
    ran = subprocess.run(
        [*INTERPRETERS[block.language], block.code],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, f"{block.code}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def shape(line: str) -> str:
    """A line without its numbers and the width of its columns, which depend on the processor."""
    return re.sub(r"\s+", " ", re.sub(r"[\d,.:-]*\d", "0", line)).strip()


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("page", list(with_code()))
def test_the_code_of_a_page_runs_and_prints_what_the_page_shows(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    run(Block("sh", "python docs/examples/orders.py", ""), tmp_path, {})
    blocks = [block for block in blocks_of(page) if block.runs]
    if any("./orders" in block.code for block in blocks):
        shutil.copytree(request.getfixturevalue("orders"), tmp_path / "orders")
    with ExitStack() as stack:
        variables = {}
        if any(block.mark == "served" for block in blocks):
            variables["NELBO_URL"] = stack.enter_context(up(tmp_path / "home"))
        for block in blocks:
            printed = run(block, tmp_path, variables if block.mark == "served" else {}).splitlines()
            shown = block.output.splitlines()
            if shown:
                assert len(printed) == len(shown), "\n".join(printed)
                assert shape(printed[0]) == shape(shown[0])


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    marks = [block.mark for page in PAGES for block in blocks_of(page) if block.mark]
    assert all(re.fullmatch(r"served|not run: .{15,}", mark) for mark in marks)
    assert sum(mark.startswith("not run") for mark in marks) <= MOST_NOT_RUN


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_diagrams_show_every_state_with_its_transitions() -> None:
    page = (ROOT / "docs" / "explanation" / "jobs.md").read_text("utf-8")
    diagrams = re.findall(r"^```mermaid\n(.*?)^```$", page, re.M | re.S)
    arrows = [set(re.findall(r"^ +(\w+) --> (\w+) : ", diagram, re.M)) for diagram in diagrams]
    jobs, chunks = (
        {(source, target) for source, targets in table.items() for target in targets}
        for table in (JOB_TRANSITIONS, CHUNK_TRANSITIONS)
    )
    # No program fails a job of which no chunk was claimed.
    assert arrows == [jobs - {("queued", "failed")}, chunks]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 180
