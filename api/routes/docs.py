"""/docs: the description of the service to read and to try. It needs no network."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from api.protection import OWN_FILES

File = Literal["swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"]
# The addresses in the page are relative, so that it works behind a proxy that adds a path. Its
# script is a file of its own, because the policy of the page allows no inline script.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nelbo</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
});
"""

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def redirect_to_docs() -> Response:
    return RedirectResponse("/docs")


@router.get("/docs")
async def get_docs() -> Response:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": OWN_FILES})


@router.get("/docs/start.js")
async def get_start() -> Response:
    return Response(START, media_type="text/javascript")


@router.get("/docs/{file}")
async def get_file(file: File) -> Response:
    return FileResponse(_folder() / file, headers={"Cache-Control": "max-age=3600"})


def _folder() -> Path:
    """The folder of Swagger UI in the package fastapi-offline, which itself is not imported."""
    package = find_spec("fastapi_offline")
    assert package is not None, "the extra api installs it"
    assert package.origin is not None
    return Path(package.origin).parent / "static"
