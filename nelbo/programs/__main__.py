"""`python -P -m nelbo.programs MODULE ARGS`: run a module of a program, such as `api.app`, as
`python -P -m` would."""

import runpy
import sys

from nelbo import programs


def main() -> None:
    sys.argv = sys.argv[1:]
    programs.prepare()
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
