"""torch_memory_saver's names for `cenote.region`, `cenote.pause` and `cenote.resume`.

::

    from cenote.compat.torch_memory_saver import torch_memory_saver

    with torch_memory_saver.region("kv_cache"):
        cache = torch.zeros(...)
    torch_memory_saver.pause("kv_cache")
    torch_memory_saver.resume("kv_cache")

PyTorch must be on cenote (`cenote.install`). A program that imports ``torch_memory_saver`` itself, such as SGLang, gets
this with ``sys.modules["torch_memory_saver"] = cenote.compat.torch_memory_saver`` before. No library is preloaded.

What differs: a wrong state is an error that changes nothing, where the original ends the process; regions nest; and
`TorchMemorySaver.get_cpu_backup` gives a copy, also of what is on disk.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cenote
from cenote import mr
from cenote._core.environment import environment_variable
from cenote.pausing import pause_together

__all__ = ["TorchMemorySaver", "configure_subprocess", "torch_memory_saver"]


_KEPT = {"nothing": "", "host": " with a backup", "file": " with a backup on disk"}
"""How a region is named after its tag."""


@contextmanager
def configure_subprocess() -> Iterator[None]:
    """Do nothing: no library is to be preloaded."""
    yield


class TorchMemorySaver:
    """What memory is of which tag, and whether it is kept while it is paused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards `_regions`
        self._regions: dict[tuple[str, str], cenote.region] = {}
        self._thread = threading.local()
        self._hook_mode = "preload"
        self._memory_margin_bytes = 0
        self._retain_cpu_backup = False
        self._disk_backup_dir = environment_variable("TMS_DISK_BACKUP_DIR") or ""

    @contextmanager
    def region(
        self,
        tag: str = "default",
        enable_cpu_backup: bool = False,
        enable_disk_backup: bool = False,
        cpu_backup_backend: str | None = None,
    ) -> Iterator[None]:
        """Put what the block allocates onto pages of the tag's own.

        Parameters
        ----------
        tag : str
            What `pause` and `resume` name it by.
        enable_cpu_backup : bool
            Whether it keeps its contents, in pinned memory, while it is paused.
        enable_disk_backup : bool
            The same in a file, in the folder of `set_disk_backup_dir`. Without either they are lost.
        cpu_backup_backend : str, optional
            ``"pinned"`` or ``"mmap"``: the host's memory is pinned in either case.
        """
        if not isinstance(tag, str):
            raise TypeError(f"tag must be a str, not {type(tag).__name__}")
        keep = self._keep(enable_cpu_backup, enable_disk_backup, cpu_backup_backend)
        around = mr.get_current_device_resource()
        with self._region_of(tag, keep):
            outside = self._outside()
            outside.append(around)
            try:
                yield
            finally:
                outside.pop()

    @contextmanager
    def disable(self, dispose_mem_pool_after_use: bool = True) -> Iterator[None]:
        """Inside of a region: what the block allocates is not of it."""
        outside = self._outside()
        if not outside:
            raise RuntimeError("disable() is for the inside of a region")
        with cenote.use(outside[0]):
            yield

    @contextmanager
    def cuda_graph(
        self,
        cuda_graph: Any,
        pool: Any = None,
        stream: Any = None,
        capture_error_mode: str = "global",
        tag: str = "default",
        enable_cpu_backup: bool = False,
        cpu_backup_backend: str | None = None,
    ) -> Iterator[None]:
        """As ``torch.cuda.graph``, with the graph's memory in the region."""
        cuda = importlib.import_module("torch.cuda")
        with (
            cuda.graph(cuda_graph, pool=pool, stream=stream, capture_error_mode=capture_error_mode),
            self.region(tag, enable_cpu_backup, cpu_backup_backend=cpu_backup_backend),
        ):
            yield

    def pause(self, tag: str | None = None) -> None:
        """Give the memory of a tag, or of all, back to the device, and keep its addresses.

        A tag that nobody has used has none.

        Raises
        ------
        RuntimeError
            If it is paused already, and as `cenote.pause`. Nothing has changed then.
        """
        running, paused = self._regions_of(tag)
        if paused and not running:
            raise RuntimeError(f"{tag or 'everything'} is paused already")
        pause_together(running)

    def resume(self, tag: str | None = None) -> None:
        """Bring the memory of a tag, or of all that is paused, back to the same addresses.

        Raises
        ------
        RuntimeError
            If it is not paused.
        MemoryError
            If the device has not enough memory left. What is still paused can be resumed later.
        """
        running, paused = self._regions_of(tag)
        if running and not paused:
            raise RuntimeError(f"{tag or 'everything'} is not paused")
        for region, _ in paused:
            cenote.resume(region)

    @property
    def enabled(self) -> bool:
        """Always so."""
        return True

    @property
    def hook_mode(self) -> str:
        """Takes what the original takes, and changes nothing: there is no hook."""
        return self._hook_mode

    @hook_mode.setter
    def hook_mode(self, hook_mode: str) -> None:
        if hook_mode not in ("preload", "torch"):
            raise ValueError(f"hook_mode must be 'preload' or 'torch', not {hook_mode!r}")
        self._hook_mode = hook_mode

    @property
    def memory_margin_bytes(self) -> int:
        """Is kept, and changes nothing: `cenote.budget` bounds what a process takes."""
        return self._memory_margin_bytes

    @memory_margin_bytes.setter
    def memory_margin_bytes(self, value: int) -> None:
        self._memory_margin_bytes = int(value)

    @property
    def retain_cpu_backup(self) -> bool:
        """Is kept, and changes nothing: pinned memory stays for the next pause (`cenote.keep_pinned`)."""
        return self._retain_cpu_backup

    @retain_cpu_backup.setter
    def retain_cpu_backup(self, value: bool) -> None:
        self._retain_cpu_backup = bool(value)

    def set_disk_backup_dir(self, path: str | os.PathLike[str]) -> None:
        """Choose the folder of the files of regions with a disk backup that are paused from now on; make it if need be.

        At first it is that of the environment variable ``TMS_DISK_BACKUP_DIR``. Each file is gone with the process.
        """
        Path(path).mkdir(parents=True, exist_ok=True)
        self._disk_backup_dir = os.fspath(path)

    def get_cpu_backup(self, x: Any, zero_copy: bool = False) -> Any:
        """Copy what a paused tensor held to a tensor of the host, and leave it paused.

        Parameters
        ----------
        x : torch.Tensor
            A contiguous tensor on a device.
        zero_copy : bool
            Takes what the original takes; it is a copy in either case.

        Returns
        -------
        torch.Tensor or None
            A tensor of the same shape and type; None if ``x`` is not paused, or its region has no backup.

        Raises
        ------
        ValueError
            If ``x`` is not on a device, or not contiguous.
        RuntimeError
            If a backup on disk cannot be read.
        """
        if not x.is_cuda or not x.is_contiguous():
            raise ValueError("a backup is there of a contiguous tensor on a device")
        torch = importlib.import_module("torch")
        contents = torch.empty(x.nbytes, dtype=torch.uint8, device="cpu")
        with self._lock:
            regions = list(self._regions.values())
        if not any(region.read_paused(x.data_ptr(), contents.numpy()) for region in regions):
            return None
        return contents.view(x.dtype).view(x.shape)

    def _outside(self) -> list[mr.DeviceMemoryResource]:
        """Give the resources around the thread's regions, the outermost one first."""
        if not hasattr(self._thread, "outside"):
            self._thread.outside = []
        outside: list[mr.DeviceMemoryResource] = self._thread.outside
        return outside

    def _keep(self, on_host: bool, on_disk: bool, backend: str | None) -> str:
        """Give where a region's contents go; with "file", the folder is the one at the pause."""
        if backend not in (None, "pinned", "mmap"):
            raise ValueError(f"cpu_backup_backend must be 'pinned' or 'mmap', not {backend!r}")
        if backend is not None and not on_host:
            raise ValueError("cpu_backup_backend goes with enable_cpu_backup=True")
        if on_host and on_disk:
            raise ValueError("contents are kept by the host or on a disk: enable_cpu_backup or enable_disk_backup")
        if on_disk and not self._disk_backup_dir:
            raise ValueError("enable_disk_backup needs a folder: set_disk_backup_dir(), or TMS_DISK_BACKUP_DIR")
        return "host" if on_host else "file" if on_disk else "nothing"

    def _region_of(self, tag: str, keep: str) -> cenote.region:
        with self._lock:
            return self._regions.setdefault((tag, keep), cenote.region(f"torch_memory_saver {tag}{_KEPT[keep]}"))

    def _regions_of(self, tag: str | None) -> tuple[list[tuple[cenote.region, str]], list[tuple[cenote.region, str]]]:
        """Those that run, and those that are paused, each with where its contents go; none that was never entered."""
        with self._lock:
            known = list(self._regions.items())
        folder = self._disk_backup_dir
        wanted = [
            (region, f"file:{folder}" if keep == "file" else keep)
            for (name, keep), region in known
            if tag in (None, name) and region.pools
        ]
        paused = [each for each in wanted if each[0].is_paused]
        return [each for each in wanted if each not in paused], paused


torch_memory_saver = TorchMemorySaver()
