"""The site of docs/, built as `make docs` builds it: it needs no network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.system

LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?([^\" >]+)|<link\b([^>]*)>")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).parent / "mkdocs"
    built = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def test_every_page_of_docs_is_on_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 30
    assert [page for page in pages if not (site / page.with_suffix(".html")).exists()] == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        for source, link in LOADED.findall(page.read_text("utf-8")):
            assert not source.startswith(("http:", "https:", "//")), (page, source)
            assert 'rel="canonical"' in link or not re.search(r"href=\"?(https?:)?//", link), page
    for style in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()[\"' ]*(https?:)?//", style.read_text("utf-8")), style


def test_diagrams_are_pictures_that_need_no_program(site: Path) -> None:
    page = (site / "explanation" / "jobs.html").read_text("utf-8")
    assert page.count('<figure class="diagram"><svg') == 2
    assert "worker claims it" in page
    assert "stateDiagram-v2" not in page
    assert 'class="mermaid"' not in page
