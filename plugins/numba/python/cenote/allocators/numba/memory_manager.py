"""The memory manager that Numba asks. Documented in `cenote.allocators.numba`."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar

import cenote
import cenote.driver
import cenote.mr
from cenote.allocators.numba import driver_calls
from cenote.allocators.numba.blocks import Block, find_block, free_blocks_of
from cenote.allocators.numba.raw_handle import RawHandle, pack_handle
from cenote.stream import CudaStreamFlags, Stream
from numba import cuda
from numba.cuda.cudadrv.driver import (
    Device,
    IpcHandle,
    ManagedMemory,
    MappedMemory,
    PinnedMemory,
    _StagedIpcImpl,
    binding,
    device_to_host,
    driver,
    host_to_device,
)

__all__ = ["CenoteNumbaManager", "on_stream"]


class _OfThread(threading.local):
    stream: Stream | None = None
    """The one of `on_stream`."""


_of_thread = _OfThread()


@contextlib.contextmanager
def on_stream(stream: Any) -> Iterator[None]:
    """Say that the arrays made inside are of one stream: ``with on_stream(stream):``.

    Such an array is usable by work that is queued on the stream from then on, and no other stream uses it unless the
    program orders the two. So neither the host nor the device waits for other work: where it is made, and where it
    dies, inside or later, its memory is reused in the order of the stream. It holds for the calling thread, and nests.

    Parameters
    ----------
    stream : numba.cuda.cudadrv.driver.Stream or any framework's stream
        Of the device that arrays are made on. It is kept for as long as they are alive.
    """
    before = _of_thread.stream
    _of_thread.stream = stream if isinstance(stream, Stream) else Stream(stream)
    try:
        yield
    finally:
        _of_thread.stream = before


@functools.cache
def _stream(device: int) -> Stream:
    """Give the stream on which memory of a device is allocated that has no stream of its own."""
    return Stream(flags=CudaStreamFlags.NON_BLOCKING, device=device)


@functools.cache
def _made(specification: str, device: int) -> cenote.mr.DeviceMemoryResource:
    return cenote.mr.from_spec(specification, device)


class SharedIpcHandle(IpcHandle):  # type: ignore[misc,unused-ignore]
    """A handle of a block of cenote's, which is opened by cenote in whatever process it is unpickled."""

    @classmethod
    def _rebuild(cls, raw: bytes, size: int, source_info: Any, offset: int) -> Any:
        driver_calls.answer_for_cenote()
        return cls(None, RawHandle(raw), size, source_info, offset)

    def open_staged(self, context: Any) -> Any:
        """Copy the memory of a device that the context's cannot reach, by way of the host."""
        self._sentry_source_info()
        if self._impl is not None:
            raise ValueError("IpcHandle is already opened")
        staged = bytearray(self.size)
        with cuda.gpus[int(Device.from_identity(self.source_info).id)]:
            there = self.open_direct(cuda.current_context())
            device_to_host(staged, there, self.size)
            self.close()
        here = context.memalloc(self.size)
        host_to_device(here, staged, self.size)
        self._impl = _StagedIpcImpl(self, self.source_info)  # closes nothing
        return here


class CenoteNumbaManager(cuda.HostOnlyCUDAMemoryManager):
    """Numba's memory from resources of cenote's: an external memory manager, version 1 of its interface.

    Device memory comes from the current resource of the context's device, pinned and mapped memory from
    `host_resource`, managed memory from `managed_resource`. What these cannot give comes from the driver, as with
    Numba's own manager: write-combined memory, and managed memory that is attached to the host.

    An array's memory is usable on every stream when it is made, and reused after all work that the device has been
    given when it dies; `on_stream` is the way to say that it is of one stream.
    """

    host_resource: ClassVar[str | cenote.mr.DeviceMemoryResource] = "pool | pinned"
    """A resource, or a specification of which each device gets one of its own; the host must reach the memory."""
    managed_resource: ClassVar[str | cenote.mr.DeviceMemoryResource] = "pool | managed"
    """The same, of managed memory."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owner = object()  # and not the manager, which its blocks would keep alive

    def initialize(self) -> None:
        """Have Numba's questions about addresses answered; resources are looked up at each allocation."""
        driver_calls.answer_for_cenote()

    def memalloc(self, size: int) -> Any:
        """Allocate device memory.

        Parameters
        ----------
        size : int
            Size in bytes.

        Returns
        -------
        numba.cuda.MemoryPointer

        Raises
        ------
        cenote.OutOfMemoryError
            There is no memory. It is a MemoryError.
        """
        if size == 0:
            return cuda.MemoryPointer(weakref.proxy(self.context), binding.CUdeviceptr(0), 0)
        block = self._make_block(size)
        return cuda.MemoryPointer(
            weakref.proxy(self.context),
            ctypes.c_void_p(block.address),
            size,
            finalizer=functools.partial(_free, self.deallocations, block),
        )

    def memallocmanaged(self, size: int, attach_global: bool) -> Any:
        """Allocate managed memory.

        Parameters
        ----------
        size : int
            Size in bytes.
        attach_global : bool
            Whether any stream may use it; otherwise the driver gives it.

        Returns
        -------
        numba.cuda.ManagedMemory
            A hold on it.
        """
        if not attach_global:
            return super().memallocmanaged(size, attach_global)
        block = self._make_block(max(size, 1), self.managed_resource)
        pointer = binding.CUdeviceptr(block.address)
        return self._own(ManagedMemory, pointer, block, size)

    def memhostalloc(self, size: int, mapped: bool = False, portable: bool = False, wc: bool = False) -> Any:
        """Allocate pinned memory of the host. All of it is portable.

        Parameters
        ----------
        size : int
            Size in bytes.
        mapped : bool
            Whether kernels are to use it.
        portable : bool
            Whether other devices may use it, too: they may.
        wc : bool
            Whether it is to be write-combined; then the driver gives it.

        Returns
        -------
        numba.cuda.MappedMemory or numba.cuda.PinnedMemory
            The first is a hold on it.
        """
        if wc:
            return super().memhostalloc(size, mapped, portable, wc)
        block = self._make_block(max(size, 1), self.host_resource)
        if mapped:
            return self._own(MappedMemory, block.address, block, size)
        finalizer = functools.partial(_free, self.deallocations, block)
        return PinnedMemory(weakref.proxy(self.context), block.address, size, finalizer=finalizer)

    def get_memory_info(self) -> Any:
        """Free and total memory of the device, in bytes, as ``numba.cuda.MemoryInfo``."""
        return cuda.MemoryInfo(*cenote.driver.memory_info(self.context.device.id))

    def get_ipc_handle(self, memory: Any) -> Any:
        """Give a handle with which another process opens the memory.

        Parameters
        ----------
        memory : numba.cuda.MemoryPointer
            An array's ``gpu_data``, also of a slice.

        Returns
        -------
        numba.cuda.IpcHandle
            Of memory that cenote shares (``pool | virtual``) it is for the block, which an array begins. Of other
            memory it is the driver's, for the allocation under the block. The handle's ``offset`` says where in it.

        Raises
        ------
        RuntimeError
            Neither can be had; the text says which resource to take.
        """
        address = int(memory.handle)
        block = find_block(address)
        source = self.context.device.get_device_identity()
        why = "it is not cenote's"
        if block is not None:
            try:
                shared = RawHandle(pack_handle(str(block.offer())))
                return SharedIpcHandle(memory, shared, memory.size, source, offset=address - block.address)
            except RuntimeError as error:
                why = str(error)
        begin, _ = driver_calls.extents_of_driver(address)
        try:
            raw = driver.cuIpcGetMemHandle(binding.CUdeviceptr(begin))
        except Exception as error:  # of Numba's own class, which has moved between its modules
            current = cenote.mr.get_per_device_resource(self.context.device.id).specification
            raise RuntimeError(
                f"other processes cannot open this memory: {why}; and the driver gives no handle of it "
                f"(cuIpcGetMemHandle: {error}). The current resource is '{current}'; make 'pool | virtual' "
                "or 'pool | cuda' current before the array is made"
            ) from error
        return IpcHandle(memory, raw, memory.size, source, offset=address - begin)

    def reset(self) -> None:
        """Free all memory of the context. Arrays in it are dead."""
        super().reset()
        free_blocks_of(self._owner)

    @contextlib.contextmanager
    def defer_cleanup(self) -> Iterator[None]:
        """Free nothing while the context that this gives is entered; what died meanwhile is freed at its end."""
        with super().defer_cleanup():
            yield
        self.deallocations.clear()

    @property
    def interface_version(self) -> int:
        """The version of Numba's interface that this is written for."""
        return 1

    def _make_block(self, size: int, resource: str | cenote.mr.DeviceMemoryResource | None = None) -> Block:
        """Allocate from `resource`, or from the current one; the memory can be used at once, but for `on_stream`'s."""
        device = self.context.device.id
        if resource is None:
            chosen: Stream | None = _of_thread.stream
            if chosen is not None and chosen.device in (-1, device):  # -1: another library's, or a default stream
                return Block(size, device, chosen, self._owner, is_of_stream=True)
        on = _stream(device)
        if resource is None:
            block = Block(size, device, on, self._owner)
        else:
            with cenote.use(_made(resource, device) if isinstance(resource, str) else resource):
                block = Block(size, device, on, self._owner)
        if not on.is_done():
            on.synchronize()
        return block

    def _own(self, kind: Any, pointer: Any, block: Block, size: int) -> Any:
        """Give a hold on memory of a kind that Numba frees when the last one ends."""
        finalizer = functools.partial(_free_owned, self.allocations, self.deallocations, block)
        memory = kind(weakref.proxy(self.context), pointer, size, finalizer=finalizer)
        self.allocations[block] = memory
        return memory.own()


def _free_owned(allocations: Any, deallocations: Any, block: Block) -> None:
    """Free a block of memory that Numba lists among its allocations."""
    allocations.pop(block, None)
    _free(deallocations, block)


def _free(deallocations: Any, block: Block) -> None:
    """Free a block, or do so later: what Numba runs when an array dies, or at exit. It holds no pointer object."""
    if deallocations.is_disabled:
        deallocations.add_item(Block.free, block, block.size)
    else:
        block.free()
