"""CudaStreamPool: streams that are made once and handed out in turn. Documented in `cenote.stream`."""
from libcpp.memory cimport unique_ptr

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport count_argument
from cenote._core.stream cimport Stream, flags_argument

from cenote._core.stream import CudaStreamFlags


cdef class CudaStreamPool:
    """A fixed number of streams of the current device, handed out in turn.

    For work that should not queue up behind that of others. Making a stream is slow; getting one from here is not, and
    may be done from any thread. Whoever gets a stream may share it with others who got the same one.

    Parameters
    ----------
    pool_size : int
        How many streams are made, at once.
    flags : CudaStreamFlags
        How they relate to the legacy default stream.

    Raises
    ------
    RuntimeError
        If `pool_size` is 0.
    OverflowError
        If `pool_size` is negative.
    MemoryError
        If there is no memory for so many.
    ValueError
        If `flags` are no flags of a stream.
    """

    cdef unique_ptr[lib.cuda_stream_pool] _pool

    def __init__(self, pool_size=16, flags=CudaStreamFlags.SYNC_DEFAULT):
        cdef size_t size = count_argument("pool_size", pool_size)
        cdef int kind = flags_argument(flags)
        cdef unique_ptr[lib.cuda_stream_pool] fresh
        self._require_unmade()
        with nogil:
            fresh = lib.make_unique[lib.cuda_stream_pool](lib.current_device(), size, <lib.stream_kind> kind)
        self._require_unmade()  # again: meanwhile others ran
        self._pool.swap(fresh)

    cdef int _require_unmade(self) except -1:
        if self._pool.get() != NULL:
            raise RuntimeError("this CudaStreamPool was initialised already")
        return 0

    def __dealloc__(self):
        with nogil:
            self._pool.reset()

    cdef lib.cuda_stream_pool* made(self) except NULL:
        """The C++ pool; RuntimeError if ``__init__`` has not made it."""
        if self._pool.get() == NULL:
            raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return self._pool.get()

    def get_stream(self, stream_id=None) -> Stream:
        """A stream of the pool; it keeps the pool alive.

        Parameters
        ----------
        stream_id : int, optional
            Which one: this number modulo the size of the pool. The next one in turn if not given.

        Raises
        ------
        OverflowError
            If `stream_id` is negative.
        """
        cdef size_t number
        cdef Stream stream = Stream.__new__(Stream)
        if stream_id is None:
            stream._owned = self.made().get_stream()
        else:
            number = count_argument("stream_id", stream_id)
            stream._owned = self.made().get_stream(number)
        stream._handle = stream._owned.get().view()
        stream.device = self.made().device()
        stream.owner = self
        return stream

    def get_pool_size(self) -> int:
        """How many streams there are."""
        return self.made().size()

    @property
    def device(self) -> int:
        """The device whose streams these are."""
        return self.made().device()

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: its streams are the driver's, in this "
                        "process. Make one where it is needed; in this process pass it on as it is")

    def __repr__(self) -> str:
        return f"<cenote.CudaStreamPool of {self.get_pool_size()} streams on device {self.device}>"
