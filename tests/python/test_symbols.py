"""What libcenote.so shows to programs, compared with the list in ``exported_names.txt``.

A name that is new there, or gone, is one that programs may use, or used. To take the names as they are into the list::

    python tests/python/test_symbols.py
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cenote

PACKAGE = Path(cenote.__file__).parent
LIST = Path(__file__).with_name("exported_names.txt")
VERSION = PACKAGE / "include" / "cenote" / "ground" / "version.h"


def library() -> Path:
    """The library under its one name, which ends with the number of its interface."""
    (found,) = (path for path in (PACKAGE / "lib").glob("libcenote.so.*") if path.suffix != ".py")
    return found


def soversion() -> str:
    found = re.search(r"^#define CENOTE_SOVERSION (\d+)$", VERSION.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def exported(library: Path) -> list[tuple[str, str]]:
    """Kind and name, as nm has them, of each symbol that the dynamic linker sees."""
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", "--demangle", str(library)], capture_output=True, text=True, check=True
    )
    symbols = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
    return sorted({(kind, name) for _, kind, name in symbols})


def without_arguments(name: str) -> str:
    return re.sub(r"\[abi:\w+\]", "", re.sub(r"(?<!operator)\(.*", "", name))


def names(library: Path) -> list[str]:
    """Functions and variables.

    Not what a compiler makes wherever it is used or leaves out (weak symbols: u, V, W), nor tables of classes, which
    are weak with one compiler and not with another.
    """
    shown = {without_arguments(name) for kind, name in exported(library) if kind not in "uVW"}
    return sorted(name for name in shown if " for " not in name)


def test_library_shows_the_names_of_the_list() -> None:
    assert names(library()) == LIST.read_text().splitlines()


def test_library_that_clang_makes_shows_the_same_names(project_with_cenote_inside: Path) -> None:
    """Clang looks at the namespace of a function's definition, too, where GCC looks at the declaration alone."""
    if shutil.which("clang++") is None:
        pytest.skip("needs clang++")
    (made,) = (project_with_cenote_inside / "build").rglob(f"libcenote.so.{soversion()}")
    assert names(made) == LIST.read_text().splitlines()


def test_every_name_is_the_c_interfaces_or_in_the_inline_namespace_of_this_number() -> None:
    ours = re.compile(
        rf"^((vtable|typeinfo|typeinfo name|guard variable) for )?(.* )?cenote::v{soversion()}::|^cenote_"
    )
    assert not [name for _, name in exported(library()) if not ours.match(name)]


def test_functions_of_the_c_interface_are_those_of_its_headers() -> None:
    headers = PACKAGE / "include" / "cenote"
    declared = {
        name: set(re.findall(r"^CENOTE_API [^;(]*?\b(cenote_\w+)\(", (headers / name).read_text(), re.MULTILINE))
        for name in ("cenote.h", "cenote_or_throw.hpp")
    }
    assert {name for name in names(library()) if name.startswith("cenote_")} == set().union(*declared.values())
    assert {name for name in declared["cenote.h"] if name.endswith("_or_throw")} == set()


def test_programs_ask_for_the_library_of_this_number() -> None:
    assert library().name == f"libcenote.so.{soversion()}"
    read = subprocess.run(["readelf", "--dynamic", str(library())], capture_output=True, text=True, check=True)
    assert re.search(rf"soname: \[libcenote\.so\.{soversion()}\]", read.stdout)


def test_programs_are_linked_with_that_library_by_its_short_name() -> None:
    """The wheel, which can have no links, has a script of the linker instead."""
    script = PACKAGE / "lib" / "libcenote.so"
    assert f"INPUT(-l:libcenote.so.{soversion()})" in script.read_text()


if __name__ == "__main__":
    LIST.write_text("\n".join(names(library())) + "\n")
