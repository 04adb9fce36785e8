"""The doors into cenote from other libraries: which there are, whether a library is installed, what opens its door."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

__all__ = ["DOORS", "Door"]


@dataclass(frozen=True)
class Door:
    """One library, and how it comes to allocate from cenote."""

    name: str
    """What `cenote.install` calls it, where that goes through it; else the library's package."""
    module: str
    """The module by which it is found."""
    distributions: tuple[str, ...]
    """What may bring it."""
    way: str
    """What puts it onto cenote."""
    is_installable: bool = False
    """Whether `cenote.install` goes through it."""
    is_on_request: bool = False
    """Whether it does so only where the library is named."""

    @property
    def needs(self) -> str:
        """How to get the library."""
        has_extra = self.is_installable and not self.is_on_request
        extra = f"'cenote[{self.name}]'" if has_extra else self.distributions[0]
        return f"pip install {extra}"

    def is_there(self) -> bool:
        """Whether the library is installed. Imports nothing of it."""
        package, _, inner = self.module.partition(".")
        spec = importlib.util.find_spec(package)
        if spec is None:
            return False
        if not inner:
            return spec.origin is not None  # any folder of the name is a package without one
        folders = spec.submodule_search_locations or ()  # of a package that several distributions share
        return any(Path(folder, inner).is_dir() for folder in folders)

    def version(self) -> tuple[str, str] | None:
        """Give the version and the distribution that it is of; None where none of those known is installed."""
        for distribution in self.distributions:
            try:
                return metadata.version(distribution), distribution
            except metadata.PackageNotFoundError:
                continue
        return None


_OWN_MEMORY = "keeps memory of its own, which its settings bound; arrays pass through DLPack"

DOORS = (
    Door("torch", "torch", ("torch",), "cenote.install(); cenote build torch, once, for all of it", True),
    Door("cupy", "cupy", ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"), "cenote.install()", True),
    Door("numba", "numba.cuda", ("numba-cuda",), "cenote.install(), before it makes a context", True),
    Door("cuda", "cuda.core", ("cuda-core",), "cenote.install(), and one call in each further thread", True),
    Door(
        "rmm",
        "rmm",
        ("rmm-cu13", "rmm-cu12"),
        "cenote.install(frameworks='rmm'); cenote build rmm, once, for C++. Or CENOTE_AS_RMM=1: then rmm means cenote "
        "for programs in Python",
        True,
        True,
    ),
    Door("warp", "warp", ("warp-lang",), "cenote.install(frameworks='warp')", True, True),
    Door(
        "triton", "triton", ("triton",), "cenote.install(frameworks='triton'), on each thread that launches", True, True
    ),
    Door("dask", "distributed", ("distributed",), "client.register_plugin(cenote.dask.CenotePlugin())"),
    Door("ray", "ray", ("ray",), "cenote.install(device='local') in each actor"),
    Door("jax", "jax", ("jax",), _OWN_MEMORY),
    Door("tensorflow", "tensorflow", ("tensorflow",), _OWN_MEMORY),
)
"""By library. Those through which `cenote.install` goes come first."""
