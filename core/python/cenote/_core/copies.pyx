"""Copies between addresses, which belong to nobody that this knows. Documented in `cenote.device_buffer`."""
from libc.stdint cimport uintptr_t

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, bytes_argument
from cenote._core.host_memory cimport readable_argument, writable_argument
from cenote._core.stream cimport Stream, as_stream

from cenote._core.stream import DEFAULT_STREAM


cdef copy(void* to, const void* source, size_t count, Stream stream, bint finish):
    """Queue a copy; where `finish` is set, one on the default stream is finished on return."""
    cdef int device = stream.device
    with nogil:
        if device < 0:
            device = lib.current_device()
        lib.copy_async(to, source, count, stream._handle, device)
        if finish and stream._handle.is_legacy_default():
            lib.synchronize(stream._handle, device)


def copy_ptr_to_host(db, hb, stream=DEFAULT_STREAM) -> None:
    """Fill a writable buffer of the host from device memory; finished on return on the default stream.

    Parameters
    ----------
    db : int
        Address in device memory.
    hb : writable buffer of unsigned bytes
        Where to; its length says how many bytes are copied.
    stream : Stream or any framework's stream
        On any other than the default stream, synchronise it before reading.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t source = address_argument("db", db)
    cdef unsigned char[::1] host = writable_argument("hb", hb)
    if host.shape[0] != 0:
        copy(<void*> &host[0], <const void*> source, host.shape[0], on, True)


def copy_host_to_ptr(hb, db, stream=DEFAULT_STREAM) -> None:
    """Fill device memory from a buffer of the host; finished on return on the default stream.

    Parameters
    ----------
    hb : buffer of unsigned bytes
        Where from; its length says how many bytes are copied.
    db : int
        Address in device memory.
    stream : Stream or any framework's stream
        On any other than the default stream the copy is only queued.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t target = address_argument("db", db)
    cdef const unsigned char[::1] host = readable_argument("hb", hb)
    if host.shape[0] != 0:
        copy(<void*> target, <const void*> &host[0], host.shape[0], on, True)


def copy_device_to_ptr(d_src, d_dst, count, stream=DEFAULT_STREAM) -> None:
    """Queue a copy from device memory to device memory; it is never waited for.

    Parameters
    ----------
    d_src, d_dst : int
        Addresses in device memory: from, to.
    count : int
        Bytes.
    stream : Stream or any framework's stream
        Where the copy is queued.
    """
    cdef Stream on = as_stream(stream)
    cdef uintptr_t source = address_argument("d_src", d_src)
    cdef uintptr_t target = address_argument("d_dst", d_dst)
    copy(<void*> target, <const void*> source, bytes_argument("count", count), on, False)
