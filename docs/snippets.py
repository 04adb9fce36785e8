"""The programs on the pages: every fenced block of Python and of C++, so that each can be run as a test.

A page's blocks of one language are run one after the other in one process. A new program, and process, begins

* at the first block of a page;
* at a block that chooses the simulated device, ``cenote.sim.configure(…)``;
* at a block after the comment ``<!-- new program -->``;
* at a block after the comment ``<!-- needs: torch, cupy -->``. Such a program needs a GPU and these modules, and runs
  only where they are; ``<!-- needs: gpu -->`` needs no module. All others run on the simulated device; so do those
  after ``<!-- needs: distributed -->`` and ``<!-- needs: cuda.core -->``, where that is installed.

The blocks of C++ are the body of ``main``, but for their lines that begin with ``#``, and for a block after the comment
``<!-- before main -->``. ``<!-- needs: nvcc -->`` is a program for CUDA's compiler and a GPU.

A block of the language ``output`` says what the block before it prints; an ellipsis in it stands for any text. A block
after the comment ``<!-- file: NAME -->`` is part of no program but a file, which a test of its own uses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["Block", "Program", "compile_cpp", "files", "programs", "run"]

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


# What every program in C++ is compiled with; a name that only the reader needs is no mistake.
_CPP_OPTIONS = ["-std=c++20", "-Wall", "-Wextra", "-Werror", "-Wno-unused-variable"]
_END_OF_BLOCK = "\x1e"


class Block(NamedTuple):
    """One block: where it is, what it says, and what it prints if the page shows that."""

    page: str
    line: int  # of its fence, counted from 1
    code: str
    output: str | None = None
    before_main: bool = False  # in C++


class Program(NamedTuple):
    """The blocks of one process, and what it needs: modules, ``gpu``, ``nvcc``; nothing on the simulated device."""

    blocks: list[Block]
    needs: tuple[str, ...] = ()
    language: str = "python"

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


def files(page: str) -> dict[str, str]:
    """Return the files on a page, by name: the blocks after a comment ``<!-- file: NAME -->``."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return {_words(fence)["file"]: fence["text"] for fence in _FENCE.finditer(text) if "file" in _words(fence)}


def _words(fence: re.Match[str]) -> dict[str, str]:
    """Take the comment before a fence apart: ``needs: a, b; before main`` is two words, one of them with a value."""
    parts = (part.partition(":") for part in (fence["comment"] or "").split(";"))
    return {word.strip(): value.strip() for word, _, value in parts}


def _programs_of(page: Path) -> list[Program]:
    text = page.read_text(encoding="utf-8")
    found: dict[str, list[Program]] = {"python": [], "cpp": []}
    last: list[Block] = []
    for fence in _FENCE.finditer(text):
        language, words = fence["language"].strip(), _words(fence)
        if language == "output":
            last[-1] = last[-1]._replace(output=fence["text"])
        if language not in found or "file" in words:
            continue
        line = text.count("\n", 0, fence.start("fence")) + 1
        block = Block(str(page.relative_to(ROOT)), line, fence["text"], before_main="before main" in words)
        so_far = found[language]
        if {"needs", "new program"} & words.keys() or "sim.configure(" in block.code or not so_far:
            so_far.append(Program([], tuple(filter(None, re.split(r"[,\s]+", words.get("needs", "")))), language))
        last = so_far[-1].blocks
        last.append(block)
    return found["python"] + found["cpp"]


def run(program: Program, folder: Path, environment: dict[str, str]) -> None:
    """Run a program in a process of its own, in `folder`; AssertionError if it fails or prints something else."""
    if program.language == "cpp":
        shown = [block for block in program.blocks if not block.before_main]
        done = _call([str(compile_cpp(program, folder))], folder, environment)
        prints = done.stdout.split(_END_OF_BLOCK)[:-1] if done.returncode == 0 else []
    else:
        shown = program.blocks
        given = json.dumps([(block.page, block.line, block.code) for block in shown])
        done = _call([sys.executable, "-c", _RUN], folder, environment, given)
        prints = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
    if done.returncode != 0:
        raise AssertionError(f"{program.name} ends with {done.returncode}:\n{done.stdout}{done.stderr}")
    for block, printed in zip(shown, prints, strict=True):
        if block.output is not None and not _matches(block.output, printed):
            raise AssertionError(f"{block.page}:{block.line} prints\n{printed}\nand not\n{block.output}")


def _call(
    command: list[str], folder: Path, environment: dict[str, str], given: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def compile_cpp(program: Program, folder: Path) -> Path:
    """Compile a program with the installed package; AssertionError, with the page and the line in it, if that fails."""
    package = _folder_of("cenote")
    library, for_cuda = package / "lib", "nvcc" in program.needs
    source, made = folder / ("program.cu" if for_cuda else "program.cpp"), folder / "program"
    source.write_text(_cpp_source(program), encoding="utf-8")
    if for_cuda:
        compiler = ["nvcc", "-std=c++20", "-Xlinker", f"-rpath={library}"]
    else:
        compiler = [*shlex.split(os.environ.get("CXX", "c++")), *_CPP_OPTIONS, f"-Wl,-rpath,{library}"]
        for cuda in sorted(_folder_of("nvidia").glob("cu*/include")):  # CCCL's headers, of a wheel
            compiler += ["-isystem", str(cuda), "-isystem", str(cuda / "cccl")]
    command = [*compiler, f"-I{package / 'include'}", str(source), "-o", str(made), f"-L{library}", "-lcenote"]
    done = _call(command, folder, dict(os.environ))
    if done.returncode != 0:
        raise AssertionError(f"{program.name} does not compile:\n{done.stdout}{done.stderr}")
    return made


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    return Path(next(iter(spec.submodule_search_locations or ["."]))) if spec else Path("no") / package


def _cpp_source(program: Program) -> str:
    """One file: what is for the preprocessor, the blocks before main, and main, which marks the end of each block."""
    includes = ["#include <cstdio>"]
    before, body = [], []
    for block in program.blocks:
        lines = []
        for line in block.code.splitlines():
            is_for_preprocessor = line.startswith("#")
            lines.append("" if is_for_preprocessor else line)
            if is_for_preprocessor:
                includes.append(line)
        (before if block.before_main else body).append(f'#line {block.line + 1} "{block.page}"\n' + "\n".join(lines))
        if not block.before_main:
            body.append(f'std::fputs("\\x{ord(_END_OF_BLOCK):02x}", stdout);')
    return "\n".join([*includes, *before, "int main() {", *body, "}", ""])


def _matches(output: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in output.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None
