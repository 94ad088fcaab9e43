"""`python -P -m nelbo.programs MODULE ARGS`: run a module of a program, such as `api.app`."""

import sys

from nelbo import programs

if __name__ == "__main__":
    programs.run(sys.argv[1:])
