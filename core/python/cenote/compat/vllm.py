"""Sleep mode of vLLM on `cenote.pause`: a backend that a program registers, and where its memory lies.

::

    from vllm.device_allocator.sleep_mode_backend import SleepModeBackendFactory

    SleepModeBackendFactory.register_backend("cenote", "cenote.compat.vllm", "CenoteBackend")

Nothing registers itself in vLLM's processes. vLLM must have the pluggable backends, and its PyTorch must be on cenote
(`cenote.install`). What vLLM allocates under a tag is put into a region by `memory_pool_context`, which a worker of the
program's own returns in the place of vLLM's allocator::

    class Worker(vllm.v1.worker.gpu_worker.Worker):
        def _maybe_get_memory_pool_context(self, tag):
            return cenote.compat.vllm.memory_pool_context(tag)

Its state is the regions': they are asked, not remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cenote
from cenote.pausing import pause_together, regions

if TYPE_CHECKING:
    _Backend = Any
else:
    from vllm.device_allocator.sleep_mode_backend import SleepModeBackend as _Backend

__all__ = ["CenoteBackend", "memory_pool_context"]

_PREFIX = "vllm "

_KEPT = ("runtime", "cudagraph")
"""vLLM makes neither of these again. Weights it loads again after level 2; all else is scratch, or a cache."""

_WOKEN_BY_NAME = ("weights", "kv_cache")
"""What stays asleep where other tags are woken. Any wake-up brings back the rest."""


def memory_pool_context(tag: str) -> cenote.region:
    """Give the region of a tag of vLLM's, such as ``"weights"`` or ``"kv_cache"``."""
    return cenote.region(_PREFIX + tag)


class CenoteBackend(_Backend):  # type: ignore[misc]  # vLLM is not there to be looked at
    """vLLM's sleep and wake-up: pinned memory keeps runtime state and graphs' memory, and weights at level 1."""

    def suspend(self, level: int = 1) -> None:
        """Give the memory of all tags back. RuntimeError, with nothing changed, if all of them are suspended.

        Where a tag cannot be paused, all are as before, contents too, and the error is raised.
        """
        running = {tag: region for tag, region in _by_tag().items() if not region.is_paused}
        if not running and _by_tag():
            raise RuntimeError("it is suspended already")
        kept = (*_KEPT, "weights") if level == 1 else _KEPT
        pause_together((region, "host" if tag in kept else "nothing") for tag, region in running.items())

    def resume(self, tags: list[str] | None = None) -> None:
        """Bring all memory back, or all but those of the tags ``"weights"`` and ``"kv_cache"`` that are not named.

        MemoryError says how much is missing. Tags that were resumed before it stay so; the others can be resumed later.
        """
        for tag, region in _by_tag().items():
            if region.is_paused and (tags is None or tag in tags or tag not in _WOKEN_BY_NAME):
                cenote.resume(region)

    def discard(self, tags: tuple[str, ...]) -> None:
        """Give the memory of some tags back without its contents; if one cannot be paused, all are as before."""
        pause_together((region, "nothing") for tag, region in _by_tag().items() if tag in tags and not region.is_paused)

    def state(self) -> str:
        """``"SUSPENDED"`` while any tag is."""
        return "SUSPENDED" if any(region.is_paused for region in _by_tag().values()) else "RUNNING"

    @classmethod
    def is_supported(cls) -> bool:
        """Say yes: where the device has no virtual memory, entering a region says so."""
        return True

    @classmethod
    def preserves_communicators(cls) -> bool:
        """Say yes: their memory is in no region."""
        return True

    @classmethod
    def preserves_compiled_artifacts(cls) -> bool:
        """Say yes: the process and its context go on."""
        return True

    @classmethod
    def preserves_graphs_with_communicators(cls) -> bool:
        """Say yes: graphs know addresses, which stay."""
        return True

    @classmethod
    def supports_durable_storage(cls) -> bool:
        """Say no: what is paused ends with the process."""
        return False


def _by_tag() -> dict[str, cenote.region]:
    return {name.removeprefix(_PREFIX): it for name, it in regions().items() if name.startswith(_PREFIX)}
