"""Where the three programs are: `api`, `worker` and `training`.

In a checkout they stand beside `nelbo`. A wheel holds them in this folder: packages with such
common names would hide, or be hidden by, those of the project that installs Nelbo. Processes that
run a program find it by its own name (`prepare`); everyone else imports it as a part of `nelbo`
(`package`).
"""

import importlib
import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_HERE = Path(__file__).parent
_INSTALLED = (_HERE / "training").is_dir()
FOLDER = _HERE if _INSTALLED else _HERE.parent.parent


def prepare() -> None:
    """Let this process, and those that it starts, import the programs by their own names."""
    if sys.path[:1] != [str(FOLDER)]:
        sys.path.insert(0, str(FOLDER))
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(FOLDER), *filter(None, others)]))


def run(arguments: Sequence[str]) -> None:
    """Run a module of a program, as `python -P -m` would; its name is the first argument."""
    sys.argv = list(arguments)
    prepare()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def package(name: str) -> ModuleType:
    """The package of a program, under a name that cannot be another project's."""
    return importlib.import_module(f"{__name__}.{name}" if _INSTALLED else name)
