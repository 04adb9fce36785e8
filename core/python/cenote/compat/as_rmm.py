"""Importing this module makes ``import rmm`` mean cenote, for the whole process: programs for RMM run unchanged.

::

    import cenote.compat.as_rmm                            # before the first `import rmm`
    python -m cenote.compat.as_rmm script.py arguments…    # the same, for a script that knows nothing of it
    python -m cenote.compat.as_rmm -m module arguments…
    python -m cenote.compat.as_rmm -c program arguments…
    pytest -p cenote.compat.as_rmm
    CENOTE_AS_RMM=1 python script.py                       # the same, from the script's `import cenote` on

Which names there are and what stands behind them says the table in `cenote.compat.rmm_names`; there is no other logic.
An RMM that is installed is not imported: the alias wins. Where it has been imported already, importing this module
raises ImportError. A process that is started by ``spawn`` or ``forkserver`` is a fresh one: its program imports this
module too.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import ModuleType

from cenote.compat import rmm_alias

__all__: list[str] = []

_USAGE = """\
usage: python -m cenote.compat.as_rmm script.py [argument ...]
       python -m cenote.compat.as_rmm -m module [argument ...]
       python -m cenote.compat.as_rmm -c program [argument ...]

Runs a Python program in which `import rmm` means cenote, as `python` would run it.
"""

rmm_alias.install()


def main(arguments: list[str]) -> int:
    """Run the program that the command line names; return the exit status where there is none to run."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    first, rest = arguments[0], arguments[1:]
    if first in ("-m", "-c") and not rest:
        print(f"{_USAGE}\nerror: {first} needs an argument", file=sys.stderr)
        return 2
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = program = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(program))
    elif first.startswith("-") and not Path(first).exists():
        print(f"{_USAGE}\nerror: there is no option {first}", file=sys.stderr)
        return 2
    elif not Path(first).exists():
        print(f"error: there is no file {first}", file=sys.stderr)
        return 2
    else:
        sys.argv = arguments
        if not sys.flags.safe_path:
            sys.path[0] = str(Path(first).resolve().parent)  # `python -m` has put the current folder there
        runpy.run_path(first, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
