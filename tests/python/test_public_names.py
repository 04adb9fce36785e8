"""One home for each public name: the module that documents it, lists it in ``__all__`` and stands in its repr."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cenote

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

# `cenote` has what most programs need, and documents what these three define.
DOCUMENTED_IN_CENOTE = {
    "cenote.budgets",
    "cenote.frameworks",
    "cenote.graph_pool",
    "cenote.initialization",
    "cenote.logs.recording",
    "cenote.scopes",
}
# Where RMM has a name in two modules, so has cenote; it is documented once.
AS_IN_RMM = {
    "cenote.mr": {"available_device_memory", "disable_logging", "enable_logging", "get_log_filenames", "is_initialized"}
}
# Not loaded here: the plugins, whose frameworks need not be there, and what changes the process when it is imported.
LEFT_OUT = re.compile(r"cenote\.allocators|cenote\.compat|cenote\.dask")


def documented_modules() -> set[str]:
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    return {name for name in re.findall(r"automodule:: ([\w.]+)", pages) if not LEFT_OUT.match(name)}


MODULES = sorted(documented_modules() | DOCUMENTED_IN_CENOTE)


def public_things(module: ModuleType) -> list[tuple[str, Any]]:
    """The classes and functions that a module has in ``__all__``."""
    things = [(name, getattr(module, name)) for name in module.__all__]
    return [(name, it) for name, it in things if inspect.isclass(it) or inspect.isroutine(it)]


def test_the_modules_were_found() -> None:
    assert len(MODULES) > 15
    assert {"cenote", "cenote.mr", "cenote.logs.trace"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_says_that_it_is_of_a_public_module_that_has_it(name: str) -> None:
    for its_name, thing in public_things(importlib.import_module(name)):
        home = thing.__module__
        assert home in MODULES, f"{name}.{its_name} is of {home}"
        assert its_name in importlib.import_module(home).__all__
        assert getattr(importlib.import_module(home), its_name) is thing
        assert name in {home, "cenote"} or its_name in AS_IN_RMM.get(name, ()), f"{name} has {its_name} of {home} too"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_compiled_is_found_by_pickle_and_inspect(name: str) -> None:
    for _, thing in public_things(importlib.import_module(name)):
        assert pickle.loads(pickle.dumps(thing)) is thing
        module = inspect.getmodule(thing)
        assert module is not None and module.__name__ == thing.__module__


def test_classes_are_shown_as_users_write_them() -> None:
    assert repr(cenote.mr.PoolMemoryResource) == "<class 'cenote.mr.PoolMemoryResource'>"
    assert repr(cenote.DeviceBuffer) == "<class 'cenote.device_buffer.DeviceBuffer'>"
    assert repr(cenote.Statistics) == "<class 'cenote.statistics.Statistics'>"


def test_short_names_are_the_modules_of_logs() -> None:
    assert cenote.trace is importlib.import_module("cenote.logs.trace")
    assert cenote.replay is importlib.import_module("cenote.logs.replay")
    assert cenote.timeline is importlib.import_module("cenote.logs.timeline")


def test_every_module_whose_name_is_public_is_in_the_reference() -> None:
    package = Path(cenote.__file__).parent
    found = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    found |= {f"logs.{path.stem}" for path in (package / "logs").glob("*.py")} - {"logs.__init__"}
    public = {f"cenote.{name}" for name in found if not name.rpartition(".")[2].startswith("_")}
    assert public <= set(MODULES)
