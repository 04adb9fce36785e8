"""The driver and its devices, as seen by this process. Documented in `cenote.driver`."""
from libc.stdint cimport uintptr_t

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, device_argument, small_argument


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


def runtime_version() -> int:
    """The CUDA version whose features cenote can use, in the form of `version`.

    cenote has no CUDA runtime. This is the version of the headers that it was compiled with, or the driver's where
    that is older.
    """
    cdef int value
    with nogil:
        value = lib.usable_cuda_version()
    return value


def is_simulated() -> bool:
    """Whether the driver is cenote's simulated device."""
    cdef bint simulated
    with nogil:
        simulated = lib.driver_is_simulated()
    return simulated


def forget() -> None:
    """Load the driver anew at its next use: for another simulated machine, or after an attempt to load that failed.

    No other thread may use the driver meanwhile. ValueError where a driver is in use that is not simulated.
    """
    with nogil:
        lib.forget_driver()


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


def set_device(device) -> None:
    """Make a device current on the calling thread, by its primary context. IndexError if there is no such device."""
    cdef int number = device_argument(device)
    with nogil:
        lib.set_current_device(number)


def device_attribute(attr, device) -> int:
    """What the driver says of a device.

    Parameters
    ----------
    attr : int or enum
        The attribute: a number of ``CUdevice_attribute``, which ``cudaDeviceAttr`` shares, or a member of either enum
        in ``cuda.bindings``.
    device : int
        The device's number.

    Returns
    -------
    int

    Raises
    ------
    IndexError
        If there is no such device.
    CudaError
        If there is no such attribute.
    """
    cdef int attribute = small_argument("attr", getattr(attr, "value", attr))
    cdef int number = device_argument(device)
    cdef int value
    with nogil:
        value = lib.device_attribute(number, attribute)
    return value


def device_name(device) -> str:
    """The device's name, such as ``"NVIDIA H100 80GB HBM3"``. IndexError if there is no such device."""
    cdef int number = device_argument(device)
    cdef lib.string name
    with nogil:
        name = lib.device_name(number)
    return name.decode()


def compute_capability(device) -> tuple[int, int]:
    """The device's compute capability as (major, minor). IndexError if there is no such device."""
    cdef int number = device_argument(device)
    cdef int value
    with nogil:
        value = lib.device_compute_capability(number)
    return value // 10, value % 10


def memory_info(device) -> tuple[int, int]:
    """Free and total memory of the device, in bytes. IndexError if there is no such device."""
    cdef int number = device_argument(device)
    cdef lib.device_memory memory
    with nogil:
        memory = lib.device_memory_info(number)
    return memory.free_bytes, memory.total_bytes


def synchronize(device) -> None:
    """Wait for all work of the device. IndexError if there is no such device."""
    cdef int number = device_argument(device)
    with nogil:
        lib.synchronize_device(number)


def address_range(pointer, device) -> tuple[int, int]:
    """Base address and size, in bytes, of the driver's allocation that `pointer` lies in."""
    cdef uintptr_t address = address_argument("pointer", pointer)
    cdef int number = device_argument(device)
    cdef lib.address_range found
    with nogil:
        found = lib.find_address_range(<const void*> address, number)
    return <size_t> found.base, found.bytes
