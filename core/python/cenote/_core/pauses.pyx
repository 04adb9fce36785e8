"""Regions and pauses. Documented in `cenote.pausing`."""
from libc.stdint cimport uintptr_t
from libcpp.memory cimport shared_ptr
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, required_size_argument, text_argument
from cenote._core.host_memory cimport writable_argument
from cenote._core.memory_resource cimport DeviceMemoryResource, resource_argument, wrap


def get_region(str name not None, int device, str specification not None) -> DeviceMemoryResource:
    """The region's pool on a device, made if there is none; with a negative one, on the current device."""
    cdef lib.string text = text_argument("name", name)
    cdef lib.string wanted = text_argument("resource", specification)
    cdef shared_ptr[lib.memory_resource] pool
    with nogil:
        pool = lib.get_region(text, device if device >= 0 else lib.current_device(), wanted)
    return wrap(pool)


def region_resources(str name not None) -> list[DeviceMemoryResource]:
    """The pools of a region, in order of device; none where there is no such region."""
    cdef lib.string text = text_argument("name", name)
    cdef vector[shared_ptr[lib.memory_resource]] pools
    if name not in region_names():
        return []
    with nogil:
        pools = lib.region_resources(text)
    return [wrap(pools[i]) for i in range(pools.size())]


def region_names() -> list[str]:
    """The regions that there are, in the order in which they were made."""
    cdef vector[lib.string] names
    with nogil:
        names = lib.region_names()
    return [names[i].decode(errors="replace") for i in range(names.size())]


def pause_resource(resource, str keep not None) -> int:
    """Pause the pool in the stack of a resource."""
    cdef shared_ptr[lib.memory_resource] held = resource_argument("region", resource)
    cdef lib.string where = text_argument("keep", keep)
    cdef size_t freed = 0
    with nogil:
        freed = lib.pause_resource(held, where)
    return freed


def resume_resource(resource) -> int:
    """Resume the pool in the stack of a resource."""
    cdef shared_ptr[lib.memory_resource] held = resource_argument("region", resource)
    cdef size_t brought = 0
    with nogil:
        brought = lib.resume_resource(held)
    return brought


def pause_region(str name not None, str keep not None) -> int:
    """Pause a region on all devices."""
    cdef lib.string text = text_argument("region", name)
    cdef lib.string where = text_argument("keep", keep)
    cdef size_t freed = 0
    with nogil:
        freed = lib.pause_region(text, where)
    return freed


def pause_regions(list plan not None) -> int:
    """Pause several regions as one; the plan has a name and a place to keep contents for each."""
    cdef vector[lib.region_pause] regions
    cdef lib.region_pause one
    cdef size_t freed = 0
    for name, keep in plan:
        one.region = text_argument("region", name)
        one.keep = text_argument("keep", keep)
        regions.push_back(one)
    with nogil:
        freed = lib.pause_regions(regions)
    return freed


def resume_region(str name not None) -> int:
    """Resume a region on all devices."""
    cdef lib.string text = text_argument("region", name)
    cdef size_t brought = 0
    with nogil:
        brought = lib.resume_region(text)
    return brought


def pause_all(str keep not None) -> int:
    """Pause all regions and current resources that are not."""
    cdef lib.string where = text_argument("keep", keep)
    cdef size_t freed = 0
    with nogil:
        freed = lib.pause_all(where)
    return freed


def resume_all() -> int:
    """Resume all regions and current resources that are paused."""
    cdef size_t brought = 0
    with nogil:
        brought = lib.resume_all()
    return brought


def is_paused(resource) -> bool:
    """Whether the pool in the stack of a resource is paused."""
    return lib.is_paused(resource_argument("resource", resource))


def paused_nbytes(resource) -> int:
    """The bytes that the pool in the stack of a resource needs to be resumed."""
    return lib.paused_bytes(resource_argument("resource", resource))


def read_paused(list resources not None, ptr, buffer) -> bool:
    """Fill a buffer of the host with what a paused pool of these resources held at an address."""
    cdef uintptr_t source = address_argument("ptr", ptr)
    cdef unsigned char[::1] host = writable_argument("buffer", buffer)
    cdef size_t size = host.shape[0]
    cdef unsigned char* to = &host[0] if size != 0 else NULL
    cdef shared_ptr[lib.memory_resource] held
    cdef bint is_kept = False
    for resource in resources:
        held = resource_argument("resource", resource)
        with nogil:
            is_kept = lib.read_paused(held, to, <const void*> source, size)
        if is_kept:
            return True
    return False


def keep_pinned(nbytes) -> int:
    """Bound the pinned host memory that pauses keep for later ones, in bytes; return how many were given back.

    Pinning memory takes several times as long as copying it, so that what a pause has pinned is kept when it is
    resumed. At first half of the host's memory may be kept.

    Parameters
    ----------
    nbytes : int or str
        The most that is kept while no pause uses it; 0 for nothing. Kept are whole chunks, of 32 MiB to 1 GiB.
    """
    cdef size_t most = required_size_argument("nbytes", nbytes)
    cdef size_t freed = 0
    with nogil:
        freed = lib.keep_pinned_at_most(most)
    return freed


def kept_pinned_nbytes() -> int:
    """The pinned host memory that is kept for later pauses, in bytes."""
    return lib.kept_pinned_bytes()
