"""Streams: one of our own, or anyone else's. Documented in `cenote.stream`."""
from enum import IntEnum
from weakref import ref

cimport cython
from libc.stdint cimport uintptr_t

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, device_argument, shown_number


class CudaStreamFlags(IntEnum):
    """How a stream made by cenote relates to the legacy default stream."""

    SYNC_DEFAULT = 0
    """Its work waits for the legacy default stream's, and the other way round."""
    NON_BLOCKING = 1
    """Its work is independent of the legacy default stream's."""


@cython.no_gc_clear  # the owner must outlive the handle, also in a reference cycle
cdef class Stream:
    """A stream of device work.

    Parameters
    ----------
    obj : object, optional
        Anyone's stream: a `Stream`; an object with ``__cuda_stream__`` (CuPy, Numba, cuda.core, PyTorch); a
        ``torch.cuda.Stream``; a handle as int. The object is kept alive. Without it a new stream is made.
    flags : CudaStreamFlags, optional
        For a new stream only; `CudaStreamFlags.SYNC_DEFAULT` if not given.
    device : int, optional
        For a new stream only; the current device if not given.

    Raises
    ------
    TypeError
        If `obj` is no stream.
    ValueError
        If `flags` are no flags of a stream, or `flags` or `device` are given together with `obj`.
    IndexError
        If there is no such device.
    """

    def __init__(self, obj=None, flags=None, device=None):
        cdef bint given = device is not None
        cdef int on = device_argument(device) if given else 0
        cdef int kind
        cdef lib.shared_ptr[lib.cuda_stream] fresh
        self.require_unmade()
        if obj is None:
            kind = CudaStreamFlags.SYNC_DEFAULT if flags is None else flags_argument(flags)
            with nogil:
                if not given:
                    on = lib.current_device()
                fresh = lib.make_shared[lib.cuda_stream](on, <lib.stream_kind> kind)
            self.require_unmade()  # again: meanwhile others ran
            self._owned.swap(fresh)
            self._handle = self._owned.get().view()
            self.device = on
            return
        if flags is not None or device is not None:
            given_name = "flags" if flags is not None else "device"
            # RMM's words, which its own tests match.
            raise ValueError(f"{given_name} may only be specified when obj is None, for a new stream: one that exists "
                             "has its own")
        cdef uintptr_t handle = address_argument("a stream's handle", stream_handle(obj))
        self.require_unmade()
        self._handle = lib.stream_ref(<lib.CUstream_st*> handle)
        self.owner = obj
        self.device = -1
        if isinstance(obj, Stream):
            self.device = (<Stream> obj).device
            self._owned = (<Stream> obj)._owned
        if self._owned.get() == NULL and not isinstance(obj, int):
            self._witness = ref(self)

    def __dealloc__(self):
        with nogil:
            self._owned.reset()

    cdef bint is_made(self):
        """Whether ``__init__``, or somebody in its place, has made it."""
        return self.owner is not None or self._owned.get() != NULL

    cdef int require_unmade(self) except -1:
        if self.is_made():
            raise RuntimeError("this Stream was initialised already")
        return 0

    cdef int require_made(self) except -1:
        if not self.is_made():
            raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return 0

    cdef bint may_be_gone(self):
        """Whether somebody else's stream may have been destroyed though this object holds it.

        So it is in garbage that is a cycle: Python calls the finalizers there, of which one may destroy the stream,
        before anything is freed. It clears the weak references first, by which we know.
        """
        return self._witness is not None and self._witness() is None

    @property
    def handle(self) -> int:
        """The driver's handle (``CUstream``)."""
        self.require_made()
        return <uintptr_t> self._handle.value()

    def __cuda_stream__(self) -> tuple[int, int]:
        """The protocol by which libraries share streams: (version 0, handle)."""
        return 0, self.handle

    def synchronize(self) -> None:
        """Wait for all work queued on the stream."""
        cdef int device
        self.require_made()
        with nogil:
            device = self.device if self.device >= 0 else lib.current_device()
            lib.synchronize(self._handle, device)

    def is_done(self) -> bool:
        """Whether all work queued on the stream is done. Does not wait."""
        cdef int device
        cdef bint done
        self.require_made()
        with nogil:
            device = self.device if self.device >= 0 else lib.current_device()
            done = lib.is_done(self._handle, device)
        return done

    def is_default(self) -> bool:
        """Whether this is the legacy default stream."""
        self.require_made()
        return self._handle.is_legacy_default()

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: it is the driver's, in this process. "
                        "Make one where it is needed; in this process pass it on as it is")

    def __eq__(self, other) -> bool:
        return isinstance(other, Stream) and self.handle == other.handle

    def __hash__(self) -> int:
        return hash(self.handle)

    def __repr__(self) -> str:
        names = {0: "default", 1: "legacy default", 2: "per-thread default"}
        return f"<cenote.Stream {names.get(self.handle, hex(self.handle))}>"


cdef stream_handle(object obj):
    """The handle of any object that is a stream, as int."""
    if isinstance(obj, Stream):
        return obj.handle
    if isinstance(obj, int) and not isinstance(obj, bool):
        if obj < 0:
            raise ValueError(f"a stream's handle cannot be negative: {shown_number(obj)}")
        return obj
    protocol = getattr(obj, "__cuda_stream__", None) if not isinstance(obj, type) else None
    if protocol is not None:
        answer = protocol() if callable(protocol) else protocol
        try:
            version, handle = answer
        except (TypeError, ValueError) as error:
            refused = TypeError if isinstance(error, TypeError) else ValueError
            raise refused(f"__cuda_stream__ of {type(obj).__name__} must give version and handle: {error}") from None
        if version != 0:
            raise NotImplementedError(f"the stream protocol is known in version 0, not in version: '{version}'")
        return handle_number(handle)
    # A class has the names and no stream; the ptr of an array is not a stream's.
    is_none = isinstance(obj, type) or hasattr(obj, "__cuda_array_interface__")
    for name in ("cuda_stream", "ptr", "handle"):  # PyTorch, CuPy, Numba
        handle = getattr(obj, name, None) if not is_none else None
        if handle is not None:
            return handle_number(getattr(handle, "value", handle) or 0)
    raise TypeError(
        f"Cannot create stream from {described(obj)}: expected a cenote.Stream, an object with __cuda_stream__, "
        "a stream of PyTorch, CuPy or Numba, or a handle as int"
    )


cdef str described(object obj):
    return f"the class {obj.__name__}" if isinstance(obj, type) else type(obj).__name__


cdef object handle_number(object handle):
    """What stands for a handle as int: an int, or an object of a binding to CUDA that can be made one."""
    if not isinstance(handle, (bool, float, str, bytes)):
        if hasattr(handle, "__int__") or hasattr(handle, "__index__"):
            return int(handle)
    raise TypeError(f"a stream's handle must be an int, not {type(handle).__name__}")


cdef int flags_argument(object flags) except -1:
    """The kind of stream that the flags mean; ValueError if they are none."""
    if not isinstance(flags, (bool, float)):  # which Python takes for the int that they equal
        try:
            return CudaStreamFlags(flags)
        except ValueError:
            pass
    shown = shown_number(flags) if type(flags) is int else type(flags).__name__
    raise ValueError(f"flags must be CudaStreamFlags.SYNC_DEFAULT or NON_BLOCKING, not {shown}")


cdef Stream as_stream(object obj):
    """`obj` as a Stream; TypeError for None and what is no stream, RuntimeError for a Stream that was never made."""
    if isinstance(obj, Stream):
        (<Stream> obj).require_made()
        return <Stream> obj
    if obj is None:
        raise TypeError("stream argument cannot be None; for the default stream pass cenote.DEFAULT_STREAM")
    return Stream(obj)


cdef lib.stream_ref stream_argument(object obj) except *:
    """The stream that `obj` is, for a call during which the caller holds `obj`; raises as `as_stream`."""
    if isinstance(obj, Stream) or obj is None:
        return as_stream(obj)._handle
    cdef uintptr_t handle = address_argument("a stream's handle", stream_handle(obj))
    return lib.stream_ref(<lib.CUstream_st*> handle)


DEFAULT_STREAM = Stream(0)
LEGACY_DEFAULT_STREAM = Stream(1)
PER_THREAD_DEFAULT_STREAM = Stream(2)
