"""What dask-cuda's users write, and what Dask's protocols need, as a specification of cenote's."""

from __future__ import annotations

import os
import re

from dask.utils import parse_bytes

__all__ = ["specification_from_dask_cuda"]

_UCX = ("ucx", "ucxx")
_ENDS_WITH_POOL = re.compile(r'(^|\|)\s*pool\s*(:[^|"]*)?$')


def specification_from_dask_cuda(
    rmm_pool_size: int | float | str | None = None,
    rmm_maximum_pool_size: int | float | str | None = None,
    rmm_managed_memory: bool = False,
    rmm_async: bool = False,
    rmm_release_threshold: int | float | str | None = None,
    rmm_track_allocations: bool = False,
    rmm_log_directory: str | os.PathLike[str] | None = None,
) -> str:
    """Say in cenote's words what the options of ``LocalCUDACluster`` say of RMM.

    Sizes are bytes, texts such as ``"5GB"``, or shares such as 0.8: of the device's memory in dask-cuda, of what is
    free of it when the resource is made in cenote. None and 0 stand for nothing.

    Parameters
    ----------
    rmm_pool_size : int, float or str, optional
        The initial size of a pool, or of the driver's with `rmm_async`. No pool if not given.
    rmm_maximum_pool_size : int, float or str, optional
        The most that the pool holds; with `rmm_async`, the most that is in use.
    rmm_managed_memory : bool
        Managed memory instead of the device's own.
    rmm_async : bool
        The driver's pool.
    rmm_release_threshold : int, float or str, optional
        What the driver's pool keeps at a synchronisation.
    rmm_track_allocations : bool
        Keep account of every allocation. The figures of the dashboard do not need it.
    rmm_log_directory : str or os.PathLike, optional
        Where each process writes a log of its allocations.

    Returns
    -------
    str
        For `cenote.mr.from_spec`, `cenote.install` and `CenotePlugin`.

    Raises
    ------
    TypeError
        A size or a folder of another type.
    ValueError
        Options that exclude each other, as in dask-cuda, or a wrong size.
    """
    if not isinstance(rmm_log_directory, str | os.PathLike | None):
        raise TypeError(f"rmm_log_directory must be a path, not {type(rmm_log_directory).__name__}")
    if rmm_async and rmm_managed_memory:
        raise ValueError("rmm_managed_memory and rmm_async exclude each other: there is one source of memory")
    if rmm_release_threshold is not None and not rmm_async:
        raise ValueError("rmm_release_threshold is of the driver's pool: it needs rmm_async=True")
    initial = _size("rmm_pool_size", rmm_pool_size)
    maximum = _size("rmm_maximum_pool_size", rmm_maximum_pool_size)
    if maximum and not initial and not rmm_async:
        raise ValueError("rmm_maximum_pool_size bounds a pool: it needs rmm_pool_size, or rmm_async=True")

    if rmm_async:
        threshold = _size("rmm_release_threshold", rmm_release_threshold)
        words = [f"limiting:limit={maximum}"] if maximum else []
        words += [_word("async", initial=initial, release_threshold=threshold)]
    else:
        words = [_word("pool", initial=initial, max=maximum)] if initial else []
        words += ["managed"] if rmm_managed_memory else [] if initial else ["cuda"]
    if rmm_track_allocations:
        words.insert(0, "tracking")
    specification = " | ".join(words)
    return specification if rmm_log_directory is None else with_log(specification, rmm_log_directory)


def _word(kind: str, **parameters: str) -> str:
    given = ",".join(f"{name}={value}" for name, value in parameters.items() if value)
    return f"{kind}:{given}" if given else kind


def _size(option: str, size: int | float | str | None) -> str:
    """Spell a size of dask-cuda's: a share as a percentage, else bytes; empty for none."""
    if size is None:
        return ""
    if isinstance(size, bool) or not isinstance(size, int | float | str):
        raise TypeError(f"{option} must be bytes, a text or a share, not {type(size).__name__}")
    share = _share(size)
    if share is not None:
        return f"{share * 100:.10g}%"
    if size == "":  # which parse_bytes takes for a byte
        raise ValueError(f"{option} must be bytes, a text such as '1GiB', or a share, and is empty")
    try:
        count = parse_bytes(size)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{option}: {error}") from None
    if count < 0:
        raise ValueError(f"{option} must not be negative, and is {size!r}")
    return str(count // 256 * 256) if count else ""


def _share(size: int | float | str) -> float | None:
    """Give a share of the memory, which is a float, or a text of one, above 0 and up to 1.0; 1 and "1" are a byte."""
    if isinstance(size, int) or size == "1":
        return None
    try:
        share = float(size)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None


def specification_for_protocol(specification: str, protocol: str) -> str:
    """Have a pool stand on ``cuda`` where Dask's protocol is UCX, and the specification names no source.

    UCX asks the driver about the extent of an address, and sees one page of a pool that maps pages.
    """
    if protocol in _UCX and _ENDS_WITH_POOL.search(specification.rstrip()):
        return f"{specification.rstrip()} | cuda"
    return specification


def with_log(specification: str, directory: str | os.PathLike[str], worker: str = "") -> str:
    """Put a log onto a specification: a file in the folder for each process, named after the worker and the process."""
    name = "-".join(part for part in ("cenote", re.sub(r"[^\w.]+", "-", worker).strip("-"), "%p.csv") if part)
    path = os.path.join(os.path.abspath(directory), name)
    quoted = path.replace('"', '""')
    return f'logging:file="{quoted}" | {specification}'
