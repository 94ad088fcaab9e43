"""What MkDocs does to a page of this site: diagrams become pictures while the site is built.

The theme would load a program for them from another host when a page is read.
"""

import re
from typing import Any

import mermaidx

DIAGRAM = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **_: Any) -> str:
    return DIAGRAM.sub(lambda match: _picture(match[1]), markdown)


def _picture(diagram: str) -> str:
    svg = mermaidx.render(diagram).svg
    return f'<figure class="diagram">{svg() if callable(svg) else svg}</figure>'
