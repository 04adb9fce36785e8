"""The driver and its devices, as seen by this process. Documented in `cenote.driver`."""
from cenote cimport _libcenote as lib


def is_loaded() -> bool:
    """Whether the driver has been used in this process. Never loads it."""
    return lib.driver_is_loaded()


def library() -> str:
    """The driver library that is in use, as it was given to the dynamic loader."""
    cdef lib.string name
    with nogil:
        name = lib.driver_library()
    return name.decode()


def version() -> int:
    """The driver's version: 1000 * major + 10 * minor, so that 13000 is 13.0."""
    cdef int value
    with nogil:
        value = lib.driver_version()
    return value


def is_simulated() -> bool:
    """Whether the driver is cenote's simulated device."""
    cdef bint simulated
    with nogil:
        simulated = lib.driver_is_simulated()
    return simulated


def device_count() -> int:
    """The number of devices."""
    cdef int count
    with nogil:
        count = lib.device_count()
    return count


def current_device() -> int:
    """The device that is current on the calling thread; 0 if none has been chosen."""
    cdef int device
    with nogil:
        device = lib.current_device()
    return device


def device_name(int device) -> str:
    """The device's name, such as ``"NVIDIA H100 80GB HBM3"``. IndexError if there is no such device."""
    cdef lib.string name
    with nogil:
        name = lib.device_name(device)
    return name.decode()


def compute_capability(int device) -> tuple[int, int]:
    """The device's compute capability as (major, minor)."""
    cdef int value
    with nogil:
        value = lib.device_compute_capability(device)
    return value // 10, value % 10


def memory_info(int device) -> tuple[int, int]:
    """Free and total memory of the device, in bytes."""
    cdef lib.device_memory memory
    with nogil:
        memory = lib.device_memory_info(device)
    return memory.free_bytes, memory.total_bytes


def synchronize(int device) -> None:
    """Wait for all work of the device."""
    with nogil:
        lib.synchronize_device(device)


def address_range(size_t pointer, int device) -> tuple[int, int]:
    """Base address and size, in bytes, of the driver's allocation that `pointer` lies in."""
    cdef lib.address_range found
    with nogil:
        found = lib.find_address_range(<const void*> pointer, device)
    return <size_t> found.base, found.bytes
