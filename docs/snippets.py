"""The programs on the pages: every fenced block of Python, so that each can be run as a test.

A page's blocks are run one after the other in one process. A new program, and process, begins

* at the first block of a page;
* at a block that chooses the simulated device, ``cenote.sim.configure(…)``;
* at a block after the comment ``<!-- new program -->``;
* at a block after the comment ``<!-- needs: torch, cupy -->``. Such a program needs a GPU and these modules, and runs
  only where they are; ``<!-- needs: gpu -->`` needs no module. All others run on the simulated device.

A block of the language ``output`` says what the block before it prints; an ellipsis in it stands for any text.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "Program", "programs", "run"]

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 300

_FENCE = re.compile(
    r"(?:^<!--(?P<comment>[^\n]*)-->\n)?^(?P<fence>`{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)

# What the process of a program does. A traceback names the page and the line in it.
_RUN = """
import contextlib, io, json, sys
namespace = {"__name__": "__main__"}
prints = []
for page, line, code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("\\n" * line + code, page, "exec"), namespace)
    prints.append(printed.getvalue())
print(json.dumps(prints))
"""


class Block(NamedTuple):
    """One block of Python: where it is, what it says, and what it prints if the page shows that."""

    page: str
    line: int  # of its fence, counted from 1
    code: str
    output: str | None = None


class Program(NamedTuple):
    """The blocks of one process, and what it needs: modules, or ``gpu``; nothing on the simulated device."""

    blocks: list[Block]
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The page and the line where it begins."""
        return f"{self.blocks[0].page}:{self.blocks[0].line}"


def pages() -> list[Path]:
    """Every page that may hold a program."""
    return [ROOT / "README.md", *sorted(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts)]


def programs() -> list[Program]:
    """All programs of all pages."""
    return [program for page in pages() for program in _programs_of(page)]


def _programs_of(page: Path) -> list[Program]:
    text = page.read_text(encoding="utf-8")
    found: list[Program] = []
    for fence in _FENCE.finditer(text):
        language, comment = fence["language"].strip(), (fence["comment"] or "").strip()
        if language == "output":
            last = found[-1].blocks[-1]
            found[-1].blocks[-1] = last._replace(output=fence["text"])
        if language != "python":
            continue
        line = text.count("\n", 0, fence.start("fence")) + 1
        block = Block(str(page.relative_to(ROOT)), line, fence["text"])
        needs = re.fullmatch(r"needs:\s*(.+)", comment)
        begins = needs or comment == "new program" or "sim.configure(" in block.code or not found
        if begins:
            found.append(Program([], tuple(re.split(r"[,\s]+", needs[1])) if needs else ()))
        found[-1].blocks.append(block)
    return found


def run(program: Program, folder: Path, environment: dict[str, str]) -> None:
    """Run a program in a process of its own, in `folder`; AssertionError if it fails or prints something else."""
    blocks = [(block.page, block.line, block.code) for block in program.blocks]
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"{program.name} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    prints = json.loads(done.stdout.splitlines()[-1])
    for block, printed in zip(program.blocks, prints, strict=True):
        if block.output is not None and not _matches(block.output, printed):
            raise AssertionError(f"{block.page}:{block.line} prints\n{printed}\nand not\n{block.output}")


def _matches(output: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in output.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
