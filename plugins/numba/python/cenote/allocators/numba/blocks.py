"""Blocks that Numba's arrays lie in: what each is freed by, and which one an address lies in."""

from __future__ import annotations

from collections import deque

from cenote.device_buffer import BlockHandle
from cenote.registry import Client
from cenote.stream import DEFAULT_STREAM, Stream

__all__ = ["Block", "find_block", "free_blocks_of"]

_client = Client("numba")
_live: set[Block] = set()
_lent: deque[Block] = deque()
"""Freed here, and open in another process still."""


class Block:
    """One block of memory from the resource that is current, counted for ``numba``.

    It may be used on any stream, and is freed after all work of the device, unless its stream is given.

    Parameters
    ----------
    size : int
        Size in bytes, at least 1.
    device : int
        Whose current resource.
    on : Stream
        The stream to allocate on.
    owner : object
        What `free_blocks_of` is told to free it with others.
    is_of_stream : bool, default False
        Whether `on` alone uses the block: then it is freed in its order.
    """

    __slots__ = ("_is_offered", "_stream", "address", "device", "owner", "size")

    def __init__(self, size: int, device: int, on: Stream, owner: object, is_of_stream: bool = False) -> None:
        if _lent:
            _free_what_came_back()
        self.address = _client.allocate(size, on, device)
        if not is_of_stream:
            _client.share(self.address)
        self.size = size
        self.device = device
        self.owner = owner
        self._stream = on if is_of_stream else DEFAULT_STREAM
        self._is_offered = False
        _live.add(self)

    def free(self) -> None:
        """Free it; nothing happens the second time. Another process that has it open keeps it until it lets go."""
        try:
            _live.remove(self)
        except KeyError:
            return
        if self._is_offered and not _client.withdraw(self.address):
            _lent.append(self)
        else:
            _client.deallocate(self.address, self._stream)

    def offer(self) -> BlockHandle:
        """Let other processes open it.

        Returns
        -------
        BlockHandle

        Raises
        ------
        RuntimeError
            Other processes cannot open this memory.
        """
        handle = _client.offer(self.address, self.size, self._stream, self.device)
        self._is_offered = True
        return handle


def find_block(address: int) -> Block | None:
    """Find the live block that an address lies in; it looks at each of them."""
    for block in list(_live):
        if block.address <= address < block.address + block.size:
            return block
    return None


def free_blocks_of(owner: object) -> None:
    """Free all live blocks of an owner."""
    for block in list(_live):
        if block.owner is owner:
            block.free()


def _free_what_came_back() -> None:
    for _ in range(len(_lent)):
        block = _lent.popleft()
        if _client.withdraw(block.address):
            _client.deallocate(block.address, block._stream)
        else:
            _lent.append(block)
