"""The layers of the core and of the simulated driver, read from object files: no function that is called lies higher.

Includes (test_layers.py) do not show all of that: a header may declare what a source of a higher layer defines.
"""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cpp_build import CppTree
from test_layers import COMMENT, CORE, KNOWS, KNOWS_OF_SIM, SIM, SIM_SOURCES, SOURCES, layer_of

Known = dict[str, set[str]]
Symbols = dict[str, set[Path]]

# A function that a header declares at the left margin, as in a namespace, and does not define.
DECLARED = re.compile(r"^(?!using|typedef)(?:\[\[\w+\]\] )?\w[\w:<>,*& ]*[ *&](\w+)\((?:[^;{}]|\{\})*\)[\w ]*;", re.M)
DEFINED = re.compile(r"(?:cenote::(?:\w+::)*)?(\w+)(?:\[abi:\w+\])?(?:\(|$)")


@dataclass
class Objects:
    """What the object files define and what they need: symbols, each with the sources of these files."""

    knows: Known
    declared: set[tuple[Path, str]]  # functions of headers
    defined: Symbols = field(default_factory=lambda: defaultdict(set))
    needed: Symbols = field(default_factory=lambda: defaultdict(set))


@pytest.fixture(scope="module", params=["core", "sim"])
def objects(request: pytest.FixtureRequest, cpp_tree: CppTree) -> Objects:
    """Read the object files of the one tree that all tests share."""
    folder, files, knows = (CORE, SOURCES, KNOWS) if request.param == "core" else (SIM, SIM_SOURCES, KNOWS_OF_SIM)
    declared = {
        (path.relative_to(folder), function)
        for path in files
        if path.suffix != ".cpp"
        for function in DECLARED.findall(COMMENT.sub("", path.read_text()))
    }
    read = Objects(knows, declared)
    for source in [path.relative_to(folder) for path in files if path.suffix == ".cpp"]:
        found = list(cpp_tree.folder.glob(f"CMakeFiles/*/{folder.relative_to(CORE.parents[1])}/{source}.o"))
        assert found, f"{source} was not compiled"
        newest = max(found, key=lambda file: file.stat().st_mtime)  # the folder may hold older builds' files as well
        listed = subprocess.run(["nm", "-P", str(newest)], capture_output=True, text=True, check=True).stdout
        for name, kind, *_ in map(str.split, listed.splitlines()):
            if kind in "Uvw":
                read.needed[name].add(source)
            elif kind.isupper() or kind == "u":  # other small letters are symbols that no other object sees
                read.defined[name].add(source)
    return read


def readable(names: Iterable[str]) -> dict[str, str]:
    """Return symbols as they were written, by what the linker calls them."""
    given = list(names)
    done = subprocess.run(["c++filt"], input="\n".join(given), capture_output=True, text=True, check=True)
    return dict(zip(given, done.stdout.splitlines(), strict=True))


def upward_links(knows: Known, defined: Symbols, needed: Symbols) -> list[tuple[Path, str, set[Path]]]:
    """Return each source with what it needs and who defines that, where its layer may know none of them.

    An inline function is defined in every object that uses it.
    """

    def may_know(user: Path, other: Path) -> bool:
        return layer_of(other) in {layer_of(user), *knows[layer_of(user)]}

    return [
        (user, name, defined[name])
        for name in sorted(defined.keys() & needed.keys())
        for user in sorted(needed[name])
        if not any(may_know(user, other) for other in defined[name])
    ]


def test_links_point_down(objects: Objects) -> None:
    upward = upward_links(objects.knows, objects.defined, objects.needed)
    assert not upward, readable(name for _, name, _ in upward)


def test_a_link_that_points_up_is_found() -> None:
    ground, surface = Path("ground/log.cpp"), Path("surface/registry.cpp")
    assert upward_links(KNOWS, {"f": {surface}}, {"f": {ground}}) == [(ground, "f", {surface})]
    assert not upward_links(KNOWS, {"f": {surface, ground}}, {"f": {ground}})  # inline
    assert not upward_links(KNOWS, {"f": {ground}}, {"f": {surface}})


def test_functions_are_defined_in_the_layer_whose_headers_declare_them(objects: Objects) -> None:
    """Also those that no source calls, but only headers and programs."""
    layers: dict[str, set[str]] = defaultdict(set)
    for name, written in readable(objects.defined).items():
        if found := DEFINED.match(written):
            layers[found[1]] |= {layer_of(source) for source in objects.defined[name]}
    assert len(objects.declared) > 50
    elsewhere = {f"{function}, {path}" for path, function in objects.declared if layer_of(path) not in layers[function]}
    assert elsewhere == set()
