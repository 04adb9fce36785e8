"""Bad input: every value of `bad_input_table` raises what is documented, and all that was there goes on working."""

from __future__ import annotations

import ast
import functools
import gc
import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from enum import Enum
from pathlib import Path
from types import GenericAlias, WrapperDescriptorType
from typing import Any

import pytest

import cenote
from bad_input_table import KIB, MIB, MODULES, NAMED_AS, SAYS_NOTHING, TABLE, kept, value_of
from cenote import driver, logger, mr, sim, stream
from cenote._core import logger as _logger

PACKAGE = Path(cenote.__file__).parent
INFO = logger.level_enum.info  # what the level is at the start

# What ends the effect of a good call.
UNDO: dict[str, Callable[[Any, Any], object]] = {
    "budgets.budget": lambda *_: cenote.budget(None, 0),
    "logger.set_logging_level": lambda *_: (_logger.set_level(INFO), logging.getLogger("cenote").setLevel(0)),
    "mr.DeviceMemoryResource.allocate": lambda resource, address: resource.deallocate(address, KIB),
    "registry.Client.allocate": lambda client, address: client.deallocate(address),
    "pressure.add_pressure_handler": lambda _, handler: handler.remove(),
    "initialization.register_reinitialize_hook": lambda _, hook: cenote.unregister_reinitialize_hook(hook),
    "mr.PoolMemoryResource.pin": lambda pool, _: pool.unpin(kept.address),
    "mr.PoolMemoryResource.unpin": lambda pool, _: pool.pin(kept.address),
}


@contextmanager
def with_block(pool: mr.PoolMemoryResource) -> Iterator[None]:
    kept.address = pool.allocate(KIB)
    yield
    pool.deallocate(kept.address, KIB)


@contextmanager
def with_pins(pool: mr.PoolMemoryResource) -> Iterator[None]:
    with with_block(pool):
        pool.pin(kept.address)
        pool.pin(kept.address)
        yield
        while pool.pins():
            pool.unpin(kept.address)


# A method with an entry needs this around each of its calls.
NEEDS: dict[str, Callable[[Any], AbstractContextManager[None]]] = {
    "mr.PoolMemoryResource.pin": with_block,
    "mr.PoolMemoryResource.unpin": with_pins,
}


def named(name: str) -> Any:
    module, *path = name.split(".")
    return functools.reduce(getattr, path, next(m for m in MODULES if m.__name__.endswith(f".{module}")))


def good_arguments(name: str) -> dict[str, Any]:
    return {parameter: value_of(good) for parameter, (good, _) in TABLE.get(name, {}).items()}


def make(name: str) -> Any:
    return named(name)(**good_arguments(name))


ABSTRACT = (mr.DeviceMemoryResource, mr.UpstreamResourceAdaptor)
RESOURCES = [
    f"mr.{name}"
    for name, it in vars(mr).items()
    if isinstance(it, type) and issubclass(it, mr.DeviceMemoryResource) and it not in ABSTRACT
]


def owner_of(name: str) -> type:
    """The class of a method; object for a function."""
    owner = name.rpartition(".")[0]
    found = named(owner) if "." in owner else None
    return found if isinstance(found, type) else object


def subjects(name: str) -> list[str | None]:
    """The classes whose objects have the method; None for what is no method."""
    if owner_of(name) is object:
        return [None]
    return [*RESOURCES] if owner_of(name) is mr.DeviceMemoryResource else [name.rpartition(".")[0]]


CASES = [
    pytest.param(name, subject, parameter, id=f"{subject or ''}{'::' if subject else ''}{name}-{parameter}")
    for name, row in TABLE.items()
    for subject in subjects(name)
    for parameter in row
]


class Standing:
    """A pool and a buffer that were there before, and what the device held then."""

    def __init__(self) -> None:
        for specification in ("async", "async_managed"):
            for device in (0, 1):  # their pools are kept, for the next one, with what others left in them
                mr.from_spec(specification, device).trim(wait=True)
        self.pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), MIB, 2 * MIB)
        self.stream = stream.Stream()
        self.buffer = cenote.DeviceBuffer(size=64, stream=self.stream, mr=self.pool)
        self.buffer.copy_from_host(bytes(range(64)), self.stream)
        self.current = {device: mr.get_per_device_resource(device) for device in (0, 1)}
        self.device = driver.current_device()
        gc.collect()
        self.live = sim.live()

    def goes_on(self) -> None:
        """The current resources are put back; everything works as before."""
        for device, resource in self.current.items():
            mr.set_per_device_resource(device, resource)
        assert driver.current_device() == self.device
        address = self.pool.allocate(KIB, self.stream)
        assert address % 256 == 0
        self.pool.deallocate(address, KIB, self.stream)
        self.pool.check()
        assert self.pool.in_use() == 256
        assert self.buffer.tobytes(self.stream) == bytes(range(64))
        assert sim.violations() == []

    def nothing_leaked(self) -> None:
        gc.collect()
        assert sim.live() == self.live


@pytest.fixture(scope="module", autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    vars(kept).clear()


@pytest.fixture
def standing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standing]:
    monkeypatch.chdir(tmp_path)  # log files go there
    assert kept.held_of_driver_pool and kept.block and kept.plain
    standing = Standing()
    yield standing
    standing.goes_on()
    standing.nothing_leaked()


def shown(value: Any) -> str:
    return f"a {type(value).__name__} never made" if isinstance(value, mr.DeviceMemoryResource) else repr(value)


def is_clear(message: str, parameter: str, error: Exception) -> bool:
    """Whether an error names the argument; one of memory that ran out has only the figures to name."""
    if not message or SAYS_NOTHING.search(message) or ("\n" in message and not isinstance(error, MemoryError)):
        return False
    names = (parameter, *NAMED_AS.get(parameter, ()))
    return isinstance(error, MemoryError) or any(name in message.lower() for name in names)


# A good call needs memory that can be exported, or another process (test_sharing.py).
FAILS_HERE = {
    "device_buffer.DeviceBuffer.share": RuntimeError,
    "device_buffer.open_shared": ValueError,
    "registry.Client.offer": RuntimeError,
    "registry.Client.withdraw": ValueError,
}


@pytest.mark.parametrize(("name", "subject", "parameter"), CASES)
def test_bad_value_raises_what_is_documented_and_nothing_changes(
    name: str, subject: str | None, parameter: str, standing: Standing
) -> None:
    owner = None if subject is None else make(subject)
    call = named(name) if owner is None else getattr(owner, name.rpartition(".")[2])
    undo = UNDO.get(name, lambda owner, result: None)
    good_outcome = pytest.raises(FAILS_HERE[name]) if name in FAILS_HERE else nullcontext()
    with NEEDS.get(name, nullcontext)(owner):
        with good_outcome:
            undo(owner, call(**good_arguments(name)))
        standing.goes_on()
        wrong = []
        for bad, expected in TABLE[name][parameter][1]:
            value = value_of(bad)
            try:
                result = call(**(good_arguments(name) | {parameter: value}))
            except Exception as error:
                message = str(error)
                if not isinstance(error, expected) or not is_clear(message, parameter, error):
                    wrong.append(f"{shown(value)}: {type(error).__name__}({message!r}) instead of {expected.__name__}")
            else:
                undo(owner, result)
                wrong.append(f"{shown(value)} is accepted: {result!r}")
            del value
            standing.goes_on()
        with good_outcome:
            undo(owner, call(**good_arguments(name)))
    assert wrong == [], "\n".join(["", *wrong])


# What Python itself calls, with arguments of its own.
LEFT_TO_PYTHON = ("__eq__", "__getattr__", "__exit__", "__deepcopy__", "__buffer__")


STUBS = [node for stub in (PACKAGE / "_core").glob("*.pyi") for node in ast.parse(stub.read_text()).body]


def declarations(thing: Any) -> list[ast.stmt]:
    """Where it is declared: in its module, or in a stub if it is compiled."""
    own = ast.parse(Path(sys.modules[thing.__module__].__file__ or "").read_text()).body
    return [node for node in own if named_like(thing, node)] or [node for node in STUBS if named_like(thing, node)]


def named_like(thing: Any, node: ast.stmt) -> bool:
    return getattr(node, "name", None) == thing.__name__


def decorators(node: ast.FunctionDef | ast.ClassDef) -> list[str]:
    return [ast.unparse(one).partition("(")[0] for one in node.decorator_list]


def callables(name: str, node: ast.stmt) -> Iterator[tuple[str, list[str]]]:
    """The public callables of a declaration, with their parameters."""
    if isinstance(node, ast.FunctionDef) and "property" not in decorators(node):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        yield name, [one.arg for one in arguments if one.arg not in ("self", "cls")]
    if not isinstance(node, ast.ClassDef):
        return
    if "dataclass" in decorators(node):
        yield name, [ast.unparse(one.target) for one in node.body if isinstance(one, ast.AnnAssign)]
    for member in node.body:
        if not isinstance(member, ast.FunctionDef | ast.ClassDef) or member.name in LEFT_TO_PYTHON:
            continue
        if member.name == "__init__":
            yield from callables(name, member)
        elif not member.name.startswith("_") or member.name.startswith("__"):
            yield from callables(f"{name}.{member.name}", member)


def public_callables() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    seen: set[int] = set()
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) in seen or not callable(thing) or isinstance(thing, GenericAlias):
                continue
            if isinstance(thing, type) and issubclass(thing, Enum):
                continue
            seen.add(id(thing))
            declared = declarations(thing)
            assert declared, f"{thing} is declared nowhere"
            for node in declared:
                for path, parameters in callables(f"{module.__name__.rpartition('.')[2]}.{name}", node):
                    found.setdefault(path, set()).update(parameters)
    return found


def test_every_public_parameter_has_its_row() -> None:
    taking_arguments = {name: parameters for name, parameters in public_callables().items() if parameters}
    assert {name: set(row) for name, row in TABLE.items()} == taking_arguments


def test_stubs_declare_the_parameters_that_there_are() -> None:
    for name, parameters in public_callables().items():
        if isinstance(named(name), WrapperDescriptorType):
            continue  # nor does a slot
        with suppress(ValueError):  # a compiled constructor does not tell
            real = inspect.signature(named(name)).parameters.values()
            named_ones = {one.name for one in real if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
            assert named_ones - {"self"} == parameters, name


HEAP_TYPE = 1 << 9  # a class that a class statement has made

# Attributes, which can be read before anything is made.
PLAIN = (
    "stream.Stream.owner",
    "stream.Stream.device",
    "registry.Client.name",
    "registry.tag.name",
    "upstream_mr",
    "allocate_func",
    "deallocate_func",
)


def compiled_classes() -> list[str]:
    return [
        f"{module.__name__.rpartition('.')[2]}.{name}"
        for module in MODULES
        for name, it in vars(module).items()
        if name in module.__all__ and isinstance(it, type) and not it.__flags__ & HEAP_TYPE and not name.startswith("_")
    ]


@pytest.mark.parametrize("name", compiled_classes())
def test_object_that_was_never_initialised_says_so(name: str, standing: Standing) -> None:
    cls = named(name)
    wrong = []
    for member in dir(cls):
        if member.startswith("_") or member in PLAIN or f"{name}.{member}" in PLAIN:
            continue
        unmade = cls.__new__(cls)
        rows = [row for row in TABLE if row.endswith(f".{member}") and owner_of(row) in cls.__mro__[:-1]]
        arguments = good_arguments(rows[0]) if rows else {}
        if isinstance(inspect.getattr_static(cls, member), classmethod):
            continue
        try:
            got = getattr(unmade, member)
            got = got(**arguments) if callable(got) else got
        except RuntimeError as error:
            assert "never initialised" in str(error)
        else:
            wrong.append(f"{member}: {got!r}")
        del unmade
        standing.goes_on()
    assert wrong == []
