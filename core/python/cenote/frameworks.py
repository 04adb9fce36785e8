"""One call that puts every framework of the process onto one resource. Documented in `cenote`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from types import TracebackType
from typing import Protocol

from cenote import driver, mr, registry
from cenote._core.registry import install_resource, keep_to_device
from cenote._core.specification import specification_words
from cenote._doors import DOORS
from cenote._local_device import local_device
from cenote.errors import DriverUnavailableError

__all__ = [
    "FRAMEWORKS",
    "GraphPages",
    "InstallDevice",
    "InstallReport",
    "InstallRow",
    "graphs_share_pages",
    "install",
    "uninstall",
]

FRAMEWORKS = tuple(door.name for door in DOORS if door.is_installable and not door.is_on_request)
"""Frameworks that have a plugin, by the name of their package; ``cuda`` is cuda.core."""

ON_REQUEST = tuple(door.name for door in DOORS if door.is_on_request)
"""Those that are put onto cenote only where they are named."""

_named: set[str] = set()
"""Those of them that were."""

TORCH_MODES = ("auto", "full", "pluggable", "mempool")
"""Ways for PyTorch."""


@dataclass(frozen=True)
class InstallRow:
    """What became of one framework."""

    framework: str
    installed: bool
    detail: str


@dataclass(frozen=True)
class InstallDevice:
    """The resource of one device."""

    device: int
    specification: str
    is_made: bool
    """False: it is made when the device is first used."""

    def __str__(self) -> str:
        return f"device {self.device}: {self.specification}{'' if self.is_made else ', made when it is first used'}"


@dataclass(frozen=True)
class InstallReport:
    """What took effect, what did not and why; prints as a table."""

    resource: str
    """The specification of what was installed; empty if there is no device."""
    rows: tuple[InstallRow, ...]
    devices: tuple[InstallDevice, ...] = ()
    """Every device of the process, with what it has."""
    others: tuple[InstallRow, ...] = ()
    """Libraries that are installed and that this call does not put onto cenote, with what does."""

    def __iter__(self) -> Iterator[InstallRow]:
        return iter(self.rows)

    def __bool__(self) -> bool:
        return all(row.installed for row in self.rows)

    def __str__(self) -> str:
        width = max((len(row.framework) for row in (*self.rows, *self.others)), default=0)
        lines = [f"current resource: {self.resource or 'none'}"]
        lines += [f"  {each}" for each in self.devices if len(self.devices) > 1]
        lines += [f"  {'✓' if row.installed else '✗'} {row.framework:<{width}}  {row.detail}" for row in self.rows]
        lines += [f"  · {row.framework:<{width}}  {row.detail}" for row in self.others]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{'✓' if row.installed else '✗'}</td><td>{escape(row.framework)}</td>"
            f"<td>{escape(row.detail)}</td></tr>"
            for row in self.rows
        )
        cells += "".join(
            f"<tr><td>·</td><td>{escape(row.framework)}</td><td>{escape(row.detail)}</td></tr>" for row in self.others
        )
        devices = "".join(f"<br>{escape(str(each))}" for each in self.devices if len(self.devices) > 1)
        caption = f"current resource: {escape(self.resource or 'none')}{devices}"
        return f"<table><caption>{caption}</caption>{cells}</table>"


def install(
    resource: mr.DeviceMemoryResource | str = "pool",
    frameworks: Iterable[str] | str = FRAMEWORKS,
    device: int | str | None = None,
    torch_mode: str = "auto",
) -> InstallReport:
    """Make `resource` current and put the frameworks onto it.

    A specification holds for every device of the process: call this first thing, before a device is chosen, also where
    each process is to use another one (``torchrun``). The device that the calling thread has chosen, or the only one
    there is, gets its resource now; the others get theirs when they are first used, and are not touched before.

    May be called again: what is in place already stays, and a specification that a device's resource was made from does
    not make another.

    Parameters
    ----------
    resource : DeviceMemoryResource or str
        A specification (see `cenote.mr.from_spec`), or a resource, which holds for its own device.
    frameworks : str or iterable of str
        Any of ``"torch"``, ``"cupy"``, ``"numba"``, ``"cuda"``, which are the default, and ``"rmm"``, ``"warp"``,
        ``"triton"``.
    device : int or "local", optional
        The one device that it holds for. ``"local"`` is this process's own where each process of a host has another
        one: the only one that it sees, else the one of its number on the host, as launchers tell it (``LOCAL_RANK`` of
        torchrun, Open MPI's and other MPIs' variables, ``SLURM_LOCALID``). The calling thread is put onto it, and the
        first use of another device is warned of, as each thread chooses its device for itself.
    torch_mode : str, default "auto"
        How PyTorch gets there: ``"auto"``, the full allocator if it is built, else the pluggable one; ``"full"`` or
        ``"pluggable"``, that one; ``"mempool"``, PyTorch's own allocator stays and takes its segments from cenote, for
        the calling thread on its current device.

    Returns
    -------
    InstallReport
        One row a framework: whether it took effect, and why not. A framework that is missing is no error. What each
        device has.

    Raises
    ------
    TypeError
        What is neither a specification nor a resource.
    ValueError
        A framework or a mode that is not known, a specification that is wrong, a resource of another device than
        `device`, or ``"local"`` where nothing tells which device that is.
    MemoryError
        The device that gets its resource now does not have the initial size. Others raise it when they are first used.
    """
    if not isinstance(resource, str | mr.DeviceMemoryResource):
        raise TypeError(f"resource must be a specification or a memory resource, not {type(resource).__name__}")
    frameworks = _known(frameworks)
    if torch_mode not in TORCH_MODES:
        raise ValueError(f"torch_mode must be one of {', '.join(map(repr, TORCH_MODES))}, not {torch_mode!r}")
    options = {"torch": {"mode": torch_mode}}
    if isinstance(device, str) and device != "local":
        raise ValueError(f"device must be the number of a device, 'local' or None, not {device!r}")
    try:
        spelled = _make_local(resource) if isinstance(device, str) else _make_current(resource, device)
        devices = _devices()
    except DriverUnavailableError as error:
        return InstallReport("", tuple(InstallRow(name, False, f"no GPU: {error}") for name in frameworks))
    rows = tuple(_install_framework(name, options) for name in frameworks)
    return InstallReport(spelled, rows, devices, _others(frameworks))


def uninstall(frameworks: Iterable[str] | str = FRAMEWORKS) -> InstallReport:
    """Have the frameworks allocate by themselves again.

    Memory that came from cenote stays valid, and goes back to it. The current resources stay:
    `cenote.mr.set_current_device_resource` replaces them.

    Parameters
    ----------
    frameworks : str or iterable of str
        Any of ``"torch"``, ``"cupy"``, ``"numba"``, ``"cuda"``, ``"rmm"``, ``"warp"``, ``"triton"``. If not given, all
        that `install` has put onto cenote.

    Returns
    -------
    InstallReport
        One row a framework: whether it is on its own memory now, and why not.

    Raises
    ------
    TypeError
        What names no frameworks.
    ValueError
        A framework that is not known.
    """
    names = _known(frameworks)
    if frameworks is FRAMEWORKS:
        names += tuple(sorted(_named))
        _named.clear()
    rows = tuple(_uninstall_framework(name) for name in names)
    try:
        return InstallReport(_specification_of(driver.current_device()), rows, _devices())
    except DriverUnavailableError:
        return InstallReport("", rows)


class GraphPages(Protocol):
    """Pages that graphs share: a context, in which they are captured."""

    def __enter__(self) -> GraphPages:
        """Begin: graphs that this thread captures join the set."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End: later graphs have memory of their own again, or of the set around this one."""

    @property
    def nbytes(self) -> int:
        """Bytes of the pages, on all devices."""


def graphs_share_pages() -> GraphPages:
    """Let CUDA graphs of PyTorch that do not run at once share their pages: ``with cenote.graphs_share_pages():``.

    Graphs that this thread captures inside get addresses of their own over one set of pages: 64 captured batch sizes
    cost the memory of the largest. Nothing is mapped or copied at a launch. It is off unless asked for, as the program
    says by it:

    * no two graphs of the set run at once. ``CUDAGraph.replay`` raises where one is launched while another one that was
      launched on another stream has not finished; launches from C++ are not looked at;
    * what a graph leaves in its memory, its outputs too, is valid until another one of the set is launched. What is to
      stay, such as weights, inputs and a cache of keys and values, is allocated outside.

    A graph takes part if its memory is its own (captured without ``pool=``) or that of a graph that takes part.

    Returns
    -------
    GraphPages
        A context, whose ``nbytes`` are those of the pages. It may be entered again, for more graphs of the same set.
        The pages go back with the graphs.

    Raises
    ------
    RuntimeError
        PyTorch is not on the full allocator: ``cenote build torch``, then `install`.
    """
    plugin = importlib.import_module("cenote.allocators.torch.shared_pages")
    pages: GraphPages = plugin.SharedPages()
    return pages


def _known(frameworks: Iterable[str] | str) -> tuple[str, ...]:
    if not isinstance(frameworks, Iterable) or isinstance(frameworks, bytes):
        raise TypeError(f"frameworks must be names of frameworks, not {type(frameworks).__name__}")
    names = (frameworks,) if isinstance(frameworks, str) else tuple(frameworks)
    for name in names:
        if name not in FRAMEWORKS + ON_REQUEST:
            known = ", ".join(FRAMEWORKS + ON_REQUEST)
            raise ValueError(f"{name!r} is not a framework that cenote knows; known are: {known}")
    return names


def _uninstall_framework(name: str) -> InstallRow:
    plugin = sys.modules.get(f"cenote.allocators.{name}")
    if plugin is None:
        return InstallRow(name, True, "was never on cenote")
    try:
        return InstallRow(name, True, plugin.uninstall())
    except Exception as error:
        return InstallRow(name, False, f"{type(error).__name__}: {error}")


def _make_current(resource: mr.DeviceMemoryResource | str, device: int | None) -> str:
    """Make it current, and spell the resource of the device that is named, its own, or the current one."""
    if not isinstance(resource, str):
        mr.set_per_device_resource(resource.device if device is None else device, resource)
        return resource.specification
    install_resource(resource, device)
    return _specification_of(driver.current_device() if device is None else device)


def _make_local(resource: mr.DeviceMemoryResource | str) -> str:
    """Make it current on this process's own device, onto which the calling thread is put."""
    device = local_device()
    driver.set_device(device)
    spelled = _make_current(resource, device)
    keep_to_device(device)
    return spelled


def _specification_of(device: int) -> str:
    """Spell the current resource; one that is not made yet is not made just to be named, as a pool takes memory."""
    current = registry.find_per_device_resource(device)
    if current is not None:
        return current.specification
    default = registry.default_specification()
    try:
        return " | ".join(specification_words(default, device))
    except ValueError:  # what CENOTE_RESOURCE says is wrong; the first use of the device says why
        return default


def _devices() -> tuple[InstallDevice, ...]:
    made = registry.devices_with_resource()
    return tuple(InstallDevice(each, _specification_of(each), each in made) for each in range(driver.device_count()))


def _others(frameworks: tuple[str, ...]) -> tuple[InstallRow, ...]:
    """Name the doors that are not gone through here, of the libraries that are there."""
    open_doors = (*FRAMEWORKS, *frameworks)
    closed = [door for door in DOORS if door.name not in open_doors and door.is_there()]
    return tuple(InstallRow(door.name, False, f"not touched: {door.way}") for door in closed)


def _runs_on_simulated_device() -> bool:
    """Whether what calls the driver by its usual name, as cuda.core does, runs on the simulated device too."""
    from cenote.sim import _library  # where a driver is simulated, it is loaded

    return _library.is_libcuda()


_WITHOUT_KERNELS = ("numba", "cuda", "rmm")
"""Whose memory can be used where the device is simulated."""


def _install_framework(name: str, options: dict[str, dict[str, str]]) -> InstallRow:
    (door,) = (door for door in DOORS if door.name == name)
    if not door.is_there():
        return InstallRow(name, False, f"not installed: {door.needs}")
    if driver.is_simulated() and not (name in _WITHOUT_KERNELS and _runs_on_simulated_device()):
        why = "no GPU: the simulated device serves cenote's own calls, not a framework's kernels"
        return InstallRow(name, False, why)
    try:
        plugin = importlib.import_module(f"cenote.allocators.{name}")
        row = InstallRow(name, True, plugin.install(**options.get(name, {})))
        _named.update({name} & {*ON_REQUEST})
        return row
    except Exception as error:  # a framework that is broken must not keep the others from being installed
        return InstallRow(name, False, f"{type(error).__name__}: {error}")
