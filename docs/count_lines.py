"""Counts what the README says of the size of the C++ side; a test compares. ``--write`` puts the figures there.

    python docs/count_lines.py --write

The pool is ``pool_memory_resource`` and all that it includes of the folders ``resources``, ``pool`` and
``structures``, headers and sources. A line of code is one that holds more than a comment.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from public_headers import ALL, CORE, includes, public_headers

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- figures of docs/count_lines.py -->\n", "<!-- end of figures -->\n"

POOL = "cenote/resources/pool_memory_resource"
POOL_FOLDERS = ("cenote/resources/", "cenote/pool/", "cenote/structures/")


def pool_files() -> list[str]:
    """Return the files that the pool is made of: its own header and source first."""
    found = [f"{POOL}.hpp", f"{POOL}.cpp"]
    for file in found:
        for header in includes(CORE / file):
            for part in (header, header.removesuffix(".hpp") + ".cpp"):
                if part.startswith(POOL_FOLDERS) and part not in found and (CORE / part).is_file():
                    found.append(part)
    return found


def lines_of_code(text: str) -> int:
    """Return the number of lines that hold more than a comment."""
    without_comments = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    return sum(bool(line.strip()) for line in without_comments.splitlines())


def row(what: str, files: list[str]) -> str:
    """Return a row of the table."""
    texts = [(CORE / file).read_text(encoding="utf-8") for file in files]
    lines, code = sum(len(text.splitlines()) for text in texts), sum(map(lines_of_code, texts))
    return f"| {what} | {len(files)} | {lines:,} | {code:,} |\n"


def table() -> str:
    """Return the table, as Markdown."""
    pool = pool_files()
    own = [file for file in pool if file.startswith(POOL + ".")]
    return (
        "| | files | lines | of code |\n|---|---|---|---|\n"
        + row("the public API of C++ and C: all headers that a program may include", [ALL, *public_headers()])
        + row("the pool: `pool_memory_resource`, its header and its source", own)
        + row("what it is made of beside: blocks, their index, streams", pool[len(own) :])
    )


def replace_table(readme: str) -> str:
    """Return the README with the figures of now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"the README has no lines {BEGIN.strip()} and {END.strip()}")
    return before + BEGIN + table() + END + after


def main() -> None:
    """Print the table, or put it into the README."""
    parser = argparse.ArgumentParser(description="Counts the files and lines of the C++ side.")
    parser.add_argument("--write", action="store_true", help="put the figures into the README")
    if parser.parse_args().write:
        README.write_text(replace_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
