from enum import IntEnum
from typing import Any, Final, Protocol, TypeAlias

from typing_extensions import disjoint_base

class CudaStreamFlags(IntEnum):
    SYNC_DEFAULT = 0
    NON_BLOCKING = 1

class _HasCudaStream(Protocol):  # cuda.core, CuPy, Numba, PyTorch
    def __cuda_stream__(self) -> tuple[int, int]: ...

class _LikeTorchStream(Protocol):
    @property
    def cuda_stream(self) -> int: ...

class _LikeCupyStream(Protocol):
    @property
    def ptr(self) -> int: ...

class _LikeNumbaStream(Protocol):
    @property
    def handle(self) -> Any: ...

_StreamLike: TypeAlias = Stream | _HasCudaStream | _LikeTorchStream | _LikeCupyStream | _LikeNumbaStream | int

@disjoint_base
class Stream:
    def __init__(
        self, obj: _StreamLike | None = None, flags: CudaStreamFlags | None = None, device: int | None = None
    ) -> None: ...
    @property
    def owner(self) -> Any: ...
    @property
    def device(self) -> int: ...
    @property
    def handle(self) -> int: ...
    def __cuda_stream__(self) -> tuple[int, int]: ...
    def synchronize(self) -> None: ...
    def is_done(self) -> bool: ...
    def is_default(self) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

DEFAULT_STREAM: Final[Stream]
LEGACY_DEFAULT_STREAM: Final[Stream]
PER_THREAD_DEFAULT_STREAM: Final[Stream]
