"""The command ``cenote``, which is ``python -m cenote`` too."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import cenote
from cenote.cli import arguments
from cenote.cli.terminal import open_terminal

__all__ = ["main"]

EXIT_FAILURE = 1
EXIT_BAD_INPUT = 2

_CAPACITY = "cenote.cli.capacity"
"""Runs in the place of the replay where ``--capacity`` is given."""

_DESCRIPTION = "One GPU memory pool under PyTorch, CuPy, Numba and C++."

_EPILOG = """\
examples:
  cenote demo                          see one pool at work, on the GPU or on a simulated one
  cenote info                          what driver, devices and frameworks there are
  cenote top                           who holds GPU memory on this machine
  cenote replay run.rec --limit 8GiB   would this recorded workload fit into 8 GiB?
  cenote replay run.rec --capacity min with how little would it do?
  cenote advise run.rec                it ran out of memory: what would have helped?
  cenote build torch                   have PyTorch's statistics, snapshots and graphs answered by cenote

to record a run, without changing the program:
  CENOTE_RECORDER_FILE=run.rec python train.py      its last allocations and frees, in run.dev0.rec

environment:
  CENOTE_RESOURCE       where memory comes from, such as "pool:max=8GiB"
  CENOTE_RECORDER_FILE  a file that keeps the last allocations and frees, also of a process that is killed
  CENOTE_CUDA_DRIVER    the driver's library; "sim" is the simulated device
  CENOTE_SIM            what is simulated, such as "devices=2,memory=80GiB"
"""

_DEMO = """\
Makes a pool with statistics and logging, and puts PyTorch, CuPy and Numba onto it, those that are installed. Each does
a little real work; a table shows who holds how many bytes of the one pool. Without a GPU the device is simulated, and
a recorded training run takes the frameworks' place.
"""

_DEMO_EPILOG = """\
examples:
  cenote demo
  cenote demo --simulate --output /tmp/demo
  CENOTE_SIM=memory=6GiB cenote demo --simulate   watch it run out of memory

writes into the output folder:
  allocations.dev0.csv   what was taken from the pool, a line for each allocation and free
  held.dev0.csv          what the pool held, after how many of them
  timeline.png           both against time; needs matplotlib, which 'cenote[cli]' brings
"""

_INFO = """\
Shows the driver, the devices with the resource that is current on each, the environment variables that are set for
cenote, and the frameworks that are installed, and says what the others need. Imports none of them. The exit status is 0
without a driver, too, and 2 if a variable is wrong.
"""

_INFO_EPILOG = """\
examples:
  cenote info
  cenote info --json | python -m json.tool
"""

_REPLAY = """\
Makes the allocations and frees of a recorded trace, to see how much a resource holds and whether the workload fits. A
trace is a log as the logging adaptors of cenote and RMM write it (CSV), a recording of the flight recorder, or a memory
snapshot of PyTorch's; logs and snapshots may be compressed with gzip. Where a killed process left the last line of a
log unfinished, the rest is replayed. Recorded streams and threads are kept apart: each has one
of its own, and the events keep the order of the trace. With --threads the threads work at the same time instead, each
in the order of its own events. Several --resource are shown side by side.

--capacity min finds, to 0.1 %, the smallest memory with which each resource completes the trace. Beside it stand the
peak of live bytes, the page floor (best fit, pages of 2 MiB that serve anywhere once they are free), and the most that
the resource held without a limit. A pool is limited by its max=, any other resource by the size of a simulated device.
The trace completes with 1.01 and 1.02 times what is given, too.
"""

_REPLAY_EPILOG = """\
examples:
  cenote replay allocations.dev0.csv
  cenote replay run.csv.gz --limit 8GiB --simulate
  cenote replay run.csv.gz --resource "pool:initial=1GiB | managed" --output run.png
  cenote replay run.csv.gz --resource pool --resource async --plot both.png --simulate
  cenote replay run.csv.gz --capacity min --simulate
  cenote replay run.csv.gz --capacity min --resource pool --resource async --simulate --json

The exit status is 1 if the workload does not fit, or not on one of several resources; with --capacity, if it completes
on one of the resources with no capacity.

--json writes {"trace", "peak_bytes", "floor", "results": [{"resource", "capacity_bytes", "capacity_ratio",
"held_ratio", "completed", "driver_calls", "seconds"}]}: floor and ratios are over the peak of live bytes; driver_calls
and seconds are those of a replay without a limit; null is what is not known, or does not apply. All else goes to
standard error. Without --capacity, results have "resource", "completed", "why_not", "held_bytes", "held_ratio",
"driver_calls" and "seconds".
"""

_BUILD = """\
Compiles the part of cenote that a library's own headers are needed for, against the library that is installed. It
takes a C++ compiler (g++ 11 or newer, or CXX) and the headers of CUDA's runtime. cenote.install() takes it from then
on.

torch: the full allocator, which answers all that PyTorch asks an allocator for, in half a minute. Without it PyTorch's
pluggable allocator is taken, for which PyTorch has no memory statistics, snapshots, MemPool and cudagraph trees.
rmm: a resource of RMM's that draws from cenote, in ten seconds; it takes Cython and CCCL's headers too. Without it
RMM's callbacks are taken, which call Python for each allocation.
"""

_BUILD_EPILOG = """\
examples:
  cenote build torch
  cenote build torch --force          once more, after another compiler was installed
  cenote build rmm

What is built lies in $XDG_CACHE_HOME/cenote (else ~/.cache/cenote), under the versions of the library and of cenote.
Nothing is compiled unless this command is run.
"""

_EXPLAIN = """\
Says who holds memory at the end of a recording, or of a log, who has only grown, and what was asked for in vain. A
recording is what cenote.recorder saved, or what a process, also one that was killed, has left under
CENOTE_RECORDER_FILE. A log is what cenote.enable_logging wrote.
"""

_EXPLAIN_EPILOG = """\
examples:
  CENOTE_RECORDER_FILE=run.%p.rec python train.py   leaves run.4711.dev0.rec
  cenote explain run.4711.dev0.rec
  cenote explain run.csv.gz --json
"""

_ADVISE = """\
Tries changes on the simulated device, and names those with which the recorded run passes.

For a run that ran out of memory, give a recording (CENOTE_RECORDER_FILE=run.rec in the program's environment leaves
one) or a log that ends with the failure. It tries giving back what others hold, freeing what only grows, another
resource in the same memory, a higher limit, and a larger device. The first line is the advice. For a run that did not
fail, it measures the sensible resources, as `cenote replay --capacity min` does, and says which to take, or that
nothing would be gained.
"""

_ADVISE_EPILOG = """\
examples:
  cenote advise run.csv.gz
  cenote advise run.4711.dev0.rec --resource "pool:max=8GiB | cuda" --memory 80GiB

cenote.explain(error, advice=True) runs it with what the error knows.
"""

_REPORT = """\
Writes a recording or a log as one page of HTML, which needs no other file and no network: who held what over time,
where the blocks lay, and the last events. Needs matplotlib, which 'cenote[cli]' brings.
"""

_REPORT_EPILOG = """\
examples:
  cenote report run.html --recording run.4711.dev0.rec
  cenote report run.html --recording run.csv.gz
"""


_TOP = """\
Shows this user's processes that use cenote: what they have in use and their pools hold of each device, who of them
holds most, and how fast they allocate (rate, a second). "unused" is the part of what pools hold that is not in use. The
processes are not asked: each counts in a small file that it maps, under /dev/shm (CENOTE_COUNTERS). The files of
processes that were killed are removed. Ctrl-C ends it.
"""

_TOP_EPILOG = """\
examples:
  cenote top
  cenote top 4711                      the clients and tags of one process
  cenote top --once --json

--json writes {"processes": [{"process", "command", "started_ns", "allocations_per_second", "devices", "clients",
"tags"}], "problems"}, sizes in bytes.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, without the command's name; those of the process if not given.

    Returns
    -------
    int
        The exit status: 0, 1 if something failed, 2 if the arguments or an input file are wrong.
    """
    if sys.stdout is None:
        return _fail("standard output is closed", EXIT_FAILURE)
    if isinstance(sys.stdout, io.TextIOWrapper):  # an encoding that lacks a letter is no reason to say nothing
        sys.stdout.reconfigure(errors="replace")
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read our output has seen enough
        _write_no_more()
        return EXIT_FAILURE
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except OSError as error:
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", EXIT_BAD_INPUT)
        _write_no_more()
        return _fail(f"the output cannot be written: {error.strerror or error}", EXIT_FAILURE)
    except ValueError as error:
        return _fail(error, EXIT_BAD_INPUT)
    except (MemoryError, RuntimeError) as error:
        return _fail(error, EXIT_FAILURE)


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return EXIT_BAD_INPUT
    try:
        args = parser.parse_args(argv)
    except SystemExit as end:  # after --help, --version and what is wrong with the arguments
        return int(end.code or 0)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"cenote: {message}", file=sys.stderr)
        warnings.simplefilter("always", cenote.trace.TraceWarning)
        command = _CAPACITY if getattr(args, "capacity", None) else args.command
        return int(importlib.import_module(command).run(args, open_terminal()))


def _write_no_more() -> None:
    """Or Python would try once more at its end to write what could not be written, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(why: object, status: int) -> int:
    print(f"cenote: {why}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """One whose help is not lost in silence where it cannot be written."""

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="", file=file)


class _Version(argparse.Action):
    """Show the version, likewise."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"cenote {cenote.__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="cenote", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, summary: str, description: str, epilog: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=f"cenote.cli.{name}")
        return command

    demo = add("demo", "see one pool at work", _DEMO, _DEMO_EPILOG)
    demo.add_argument(
        "--output",
        type=arguments.path,
        default="cenote-demo",
        metavar="DIR",
        help="where to write (default: ./cenote-demo)",
    )
    demo.add_argument("--trace", type=arguments.path, metavar="FILE", help="replay this trace")
    _add_device_arguments(demo)

    info = add("info", "show driver, devices and frameworks", _INFO, _INFO_EPILOG)
    info.add_argument("--json", action="store_true", help="write JSON with stable keys, sizes in bytes")

    replay = add("replay", "replay a recorded trace on any resource", _REPLAY, _REPLAY_EPILOG)
    replay.add_argument(
        "file", type=arguments.path, metavar="TRACE", help="a log, a recording, or a snapshot of PyTorch's"
    )
    replay.add_argument("--capacity", choices=("min",), help="find the smallest memory that is enough")
    chosen = replay.add_mutually_exclusive_group()
    chosen.add_argument(
        "--resource",
        action="append",
        type=arguments.specification,
        metavar="SPEC",
        help='such as "pool:max=8GiB" (default: pool); given several times, they are compared; '
        "with --capacity the default is a pool that grows, async and cuda",
    )
    chosen.add_argument(
        "--limit",
        type=arguments.limit,
        metavar="SIZE",
        help="the most that the pool may hold, such as 8GiB or 50%%",
    )
    replay.add_argument(
        "--output",
        type=arguments.picture,
        metavar="FILE",
        help="draw bytes in use and held; of several resources side by side, with the addresses in use; with "
        "--capacity a chart: a .png, .svg or .pdf",
    )
    replay.add_argument("--plot", dest="output", type=arguments.picture, metavar="FILE", help="the same as --output")
    replay.add_argument(
        "--threads", action="store_true", help="have the recorded threads work at the same time, without --capacity"
    )
    replay.add_argument(
        "--json", action="store_true", help="with --capacity or several --resource: write JSON with stable keys"
    )
    _add_device_arguments(replay)

    build = add("build", "compile what needs a framework's headers", _BUILD, _BUILD_EPILOG)
    build.add_argument("framework", choices=("torch", "rmm"), help="for which framework")
    build.add_argument("--force", action="store_true", help="compile it again")

    explain = add("explain", "say what a recording or a log tells of memory", _EXPLAIN, _EXPLAIN_EPILOG)
    explain.add_argument("file", type=arguments.path, metavar="FILE", help="a recording, or a log")
    explain.add_argument("--json", action="store_true", help="write JSON, sizes in bytes")

    advise = add("advise", "try what would help a recorded run", _ADVISE, _ADVISE_EPILOG)
    advise.add_argument("file", type=arguments.path, metavar="FILE", help="a recording, or a log")
    advise.add_argument(
        "--resource",
        type=arguments.specification,
        metavar="SPEC",
        help='the one in force, such as "pool:max=8GiB | cuda" (default: pool)',
    )
    for name, what in (
        ("memory", "memory of the device (default: of the simulated one, 80 GiB)"),
        ("outside", "what is held of it beside cenote, other processes included (default: nothing)"),
        ("processes", "what other processes hold of it (default: nothing)"),
        ("contexts", "what nobody can give back of it, such as contexts (default: nothing)"),
        ("budget", "what the process may hold of it in all (default: no bound)"),
        ("budget-of-others", "what of that other resources, and processes that share it, hold (default: nothing)"),
    ):
        advise.add_argument(f"--{name}", type=arguments.size, metavar="SIZE", help=what)
    advise.add_argument("--json", action="store_true", help="write JSON, sizes in bytes")

    top = add("top", "show who holds memory on this machine", _TOP, _TOP_EPILOG)
    top.add_argument("process", nargs="?", type=arguments.process, metavar="PID", help="a process to look into")
    top.add_argument("--every", type=arguments.seconds, default=1.0, metavar="SECONDS", help="(default: 1)")
    top.add_argument("--once", action="store_true", help="show it once, and end")
    top.add_argument("--json", action="store_true", help="write it once as JSON, sizes in bytes")

    report = add("report", "write a recording or a log as a page", _REPORT, _REPORT_EPILOG)
    report.add_argument("page", type=arguments.page, metavar="FILE.html", help="what to write")
    report.add_argument(
        "--recording", dest="file", type=arguments.path, metavar="FILE", required=True, help="a recording, or a log"
    )
    return parser


def _add_device_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", type=arguments.device, default=0, metavar="N", help="the device's number (default: 0)"
    )
    command.add_argument("--simulate", action="store_true", help="on a simulated device, even if there is a GPU")
