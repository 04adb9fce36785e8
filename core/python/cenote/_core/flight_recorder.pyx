"""What the flight recorder and the ledger have written down. Documented in `cenote.recorder` and `cenote.registry`."""
from libcpp.optional cimport optional
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport device_argument


def copy_region(device) -> bytes:
    """The region of a device, as `cenote.recorder.read` takes it; empty where nothing was recorded."""
    cdef int number = device_argument(device)
    cdef lib.string region
    with nogil:
        region = lib.copy_region(number)
    return region


def file_of(device) -> str:
    """The file in which a device's region lies; empty where it is private memory, or there is none."""
    cdef int number = device_argument(device)
    cdef lib.string path
    with nogil:
        path = lib.file_of_region(number)
    return path.decode("utf-8", "surrogateescape")


def bytes_of_a_region() -> int:
    """Bytes that a device's region may take; 0 if the recorder is off."""
    return lib.bytes_of_a_region()


def set_recording(on) -> None:
    """Switch all recording of the process off or on again."""
    lib.set_recording(bool(on))


def held_blocks(device=None) -> list[tuple[int, int, int, int, int, int]]:
    """All blocks that clients hold: (address, bytes, stream, client, tag, device)."""
    cdef optional[int] of_one
    cdef vector[lib.held_block] blocks
    cdef size_t i
    if device is not None:
        of_one = device_argument(device)
    with nogil:
        blocks = lib.held_blocks(of_one)
    return [(blocks[i].address, blocks[i].bytes, blocks[i].stream, blocks[i].client, blocks[i].tag, blocks[i].device)
            for i in range(blocks.size())]


def tag_names() -> list[str]:
    """The names of all tags, by their numbers; that of 0, no tag, is empty."""
    cdef vector[lib.client_usage] tags
    with nogil:
        tags = lib.usage_by_tag()
    return [""] + [tags[i].name.decode(errors="replace") for i in range(tags.size())]


def client_names() -> list[str]:
    """The names of all clients, by their numbers."""
    cdef vector[lib.client_usage] clients
    with nogil:
        clients = lib.usage()
    return [clients[i].name.decode(errors="replace") for i in range(clients.size())]
