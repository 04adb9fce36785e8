"""DeviceBuffer: untyped device memory that frees itself. Documented in `cenote`."""
import numpy as np

cimport cython
from libc.stdint cimport uintptr_t
from libcpp.memory cimport unique_ptr

from cenote cimport _libcenote as lib
from cenote._memory_resource cimport DeviceMemoryResource, wrap
from cenote._stream cimport Stream, as_stream

from cenote._stream import DEFAULT_STREAM

cdef int _client = lib.register_client(b"cenote")


@cython.no_gc_clear  # the stream and the resource must outlive the memory, also in a reference cycle
cdef class DeviceBuffer:
    """Device memory of a resource, freed in stream order when the object dies.

    Parameters
    ----------
    ptr : int
        Address in host or device memory to copy `size` bytes from; 0 leaves the memory uninitialised.
    size : int
        Size in bytes.
    stream : Stream or any framework's stream
        Where the memory is allocated and copied. On the default stream the copy is finished on return, on any other
        it is only queued.
    mr : DeviceMemoryResource, optional
        Where the memory comes from; the current device's resource if not given.

    Raises
    ------
    OutOfMemoryError
        The resource has no memory to give.
    """

    cdef unique_ptr[lib.device_buffer] _buffer
    cdef Stream _stream
    cdef DeviceMemoryResource _mr
    cdef size_t _counted

    def __init__(self, *, uintptr_t ptr=0, size_t size=0, stream=DEFAULT_STREAM, mr=None):
        cdef Stream on = as_stream(stream)
        cdef lib.shared_ptr[lib.memory_resource] resource
        if mr is None:
            with nogil:
                resource = lib.get_current_device_resource()
        elif isinstance(mr, DeviceMemoryResource):
            resource = (<DeviceMemoryResource> mr)._resource
        else:
            raise TypeError(f"mr must be a memory resource, not {type(mr).__name__}")
        with nogil:
            self._buffer = lib.make_unique[lib.device_buffer](size, on._handle, resource)
            if ptr != 0 and size != 0:
                self.made().copy_from(<const void*> ptr, size, on._handle)
        self._stream = on
        self._mr = wrap(resource)
        self._count()
        if ptr != 0:
            self._finish(on)

    cdef lib.device_buffer* made(self) except NULL nogil:
        """The C++ buffer; RuntimeError if ``__init__`` has not made it."""
        if self._buffer.get() == NULL:
            with gil:
                raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return self._buffer.get()

    def __dealloc__(self):
        if self._counted != 0:
            lib.client_freed(_client, self._counted)
        with nogil:
            self._buffer.reset()

    cdef _count(self):
        """Count the buffer's present capacity for the client "cenote"."""
        if self._counted != self.made().capacity():
            if self._counted != 0:
                lib.client_freed(_client, self._counted)
            self._counted = self.made().capacity()
            if self._counted != 0:
                lib.client_allocated(_client, self._counted)

    cdef _finish(self, Stream stream):
        """A call on the default stream is finished when it returns."""
        if stream._handle.is_legacy_default():
            with nogil:
                lib.synchronize(stream._handle, self.made().device())

    cdef _use(self, Stream stream):
        """The buffer was used on `stream` last: it will be freed there."""
        self.made().set_stream(stream._handle)
        self._stream = stream

    @property
    def ptr(self) -> int:
        """The address; 0 if the size is 0."""
        return <uintptr_t> self.made().data()

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.made().size()

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.made().size()

    def capacity(self) -> int:
        """Bytes that are allocated; at least `size`."""
        return self.made().capacity()

    @property
    def mr(self) -> DeviceMemoryResource:
        """The resource that the memory came from and goes back to."""
        return self._mr

    @property
    def stream(self) -> Stream:
        """The stream that the buffer was used on last, and will be freed on."""
        return self._stream

    @property
    def device(self) -> int:
        """The device whose memory this is."""
        return self.made().device()

    def __len__(self) -> int:
        return self.made().size()

    def __sizeof__(self) -> int:
        return self.made().size()

    def __repr__(self) -> str:
        return f"<cenote.DeviceBuffer of {self.size} bytes at {self.ptr:#x} on device {self.device}>"

    @property
    def __cuda_array_interface__(self) -> dict:
        """The protocol (version 3) by which array libraries see the buffer as unsigned bytes, shape ``(size,)``."""
        return {
            "data": (self.ptr, False),
            "shape": (self.size,),
            "strides": None,
            "typestr": "|u1",
            "version": 3,
            "stream": self._stream.handle or 1,  # the protocol forbids 0; 1 is the legacy default stream
        }

    @staticmethod
    def to_device(const unsigned char[::1] b not None, stream=DEFAULT_STREAM) -> DeviceBuffer:
        """A new buffer with the bytes of `b`, a contiguous buffer of unsigned bytes such as ``bytes``."""
        cdef uintptr_t source = <uintptr_t> &b[0] if b.shape[0] != 0 else 0
        return DeviceBuffer(ptr=source, size=b.shape[0], stream=stream)

    def copy_to_host(self, ary=None, stream=DEFAULT_STREAM):
        """Copy the bytes to the host.

        Parameters
        ----------
        ary : writable buffer of unsigned bytes, optional
            Where to; its first `size` bytes are written. A new ``numpy.uint8`` array of shape ``(size,)`` if not given.
        stream : Stream or any framework's stream
            On the default stream the copy is finished on return; on any other, synchronise it before reading.

        Raises
        ------
        ValueError
            If `ary` is too small.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t size = self.made().size()
        if ary is None:
            ary = np.empty(size, dtype="u1")
        cdef unsigned char[::1] target = ary
        if <size_t> target.shape[0] < size:
            raise ValueError(f"the host buffer is too small. Need space for {size} bytes, not {target.shape[0]}")
        cdef void* to = <void*> &target[0] if target.shape[0] != 0 else NULL
        with nogil:
            self.made().copy_to(to, size, on._handle)
        self._use(on)
        self._finish(on)
        return ary

    def copy_from_host(self, const unsigned char[::1] ary not None, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of `ary`; ValueError if they are more than `size`."""
        cdef Stream on = as_stream(stream)
        cdef size_t count = ary.shape[0]
        self._check_room(count)
        cdef const void* source = <const void*> &ary[0] if count != 0 else NULL
        with nogil:
            self.made().copy_from(source, count, on._handle)
        self._use(on)
        self._finish(on)

    def copy_from_device(self, cuda_ary, stream=DEFAULT_STREAM) -> None:
        """Overwrite the first bytes with those of a one-dimensional contiguous array in device memory.

        `cuda_ary` is any object with ``__cuda_array_interface__``; ValueError if it has none, is not contiguous or has
        more bytes than the buffer.
        """
        cdef Stream on = as_stream(stream)
        interface = getattr(cuda_ary, "__cuda_array_interface__", None)
        if interface is None:
            raise ValueError(f"expected an array in device memory (__cuda_array_interface__), "
                             f"not {type(cuda_ary).__name__}")
        item = np.dtype(interface["typestr"]).itemsize
        shape, strides = interface["shape"], interface.get("strides")
        if len(shape) > 1 or (strides and strides[0] != item) or any(extent < 0 for extent in shape):
            raise ValueError("expected a one-dimensional contiguous array")
        cdef size_t count = item * (shape[0] if shape else 1)
        cdef uintptr_t source = interface["data"][0]
        cdef Stream written_on = on if interface.get("stream") is None else as_stream(interface["stream"])
        self._check_room(count)
        with nogil:
            lib.order_after(on._handle, written_on._handle, self.made().device())
            self.made().copy_from(<const void*> source, count, on._handle)
        self._use(on)
        self._finish(on)

    cdef _check_room(self, size_t count):
        if count > self.made().size():
            raise ValueError(f"{count} bytes do not fit into a buffer of {self.size}")

    def tobytes(self, stream=DEFAULT_STREAM) -> bytes:
        """The contents as ``bytes``."""
        cdef Stream on = as_stream(stream)
        copied = self.copy_to_host(stream=on)
        on.synchronize()
        return copied.tobytes()

    def __bytes__(self) -> bytes:
        return self.tobytes()

    def copy(self) -> DeviceBuffer:
        """A buffer of its own with the same bytes, from the same resource, on the same stream."""
        return DeviceBuffer(ptr=self.ptr, size=self.size, stream=self._stream, mr=self._mr)

    def __copy__(self) -> DeviceBuffer:
        return self.copy()

    def reserve(self, size_t new_capacity, stream=DEFAULT_STREAM) -> None:
        """Make room for `new_capacity` bytes; the contents are kept."""
        cdef Stream on = as_stream(stream)
        with nogil:
            self.made().reserve(new_capacity, on._handle)
        self._stream = on
        self._count()

    def resize(self, size_t new_size, stream=DEFAULT_STREAM) -> None:
        """Change the size; the contents are kept as far as they fit, new bytes are not initialised."""
        cdef Stream on = as_stream(stream)
        with nogil:
            self.made().resize(new_size, on._handle)
        self._stream = on
        self._count()
