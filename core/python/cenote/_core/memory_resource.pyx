"""What every memory resource can do, and how C++ resources become Python objects. Documented in `cenote.mr`."""
from dataclasses import asdict, dataclass
from weakref import WeakValueDictionary, ref

from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp.memory cimport make_shared, shared_ptr
from libcpp.optional cimport optional

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, bytes_argument
from cenote._core.libcenote cimport PyObject, PyTypeObject, traverseproc, visitproc
from cenote._core.stream cimport Stream, as_stream

from cenote._core.stream import DEFAULT_STREAM

# Which Python object stands for a C++ resource: the one that made it, as long as anybody holds it.
_objects = WeakValueDictionary()
# Most are asked for again and again: a weak reference to the last that was found, and the last that nobody holds.
cdef object _last_known = lambda: None
cdef const void* _last_unknown = NULL


cdef object figure(optional[size_t] bytes):
    """An int, or None where the figure is unknown."""
    return bytes.value() if bytes.has_value() else None


@dataclass(frozen=True)
class MemoryState:
    """Figures of a resource and of its device, in bytes; None for what is not known.

    Attributes
    ----------
    in_use : int or None
        Handed out and not yet freed.
    held : int or None
        Taken from the upstream, or the device.
    limit : int or None
        The most that it may hold.
    largest_free : int or None
        The largest block that it could hand out without growing.
    device_free, device_total : int or None
        Free memory of the device, and all of its memory.
    """

    in_use: int | None
    held: int | None
    limit: int | None
    largest_free: int | None
    device_free: int | None
    device_total: int | None


cdef class DeviceMemoryResource:
    """What every memory resource can do. Resources are made by the classes that derive from this one."""

    def __init__(self, *args, **kwargs):
        raise TypeError("DeviceMemoryResource is the common base; make a CudaMemoryResource, PoolMemoryResource, …")

    def __cinit__(self, *args, **kwargs):
        pass  # Cython 3.3.0 needs one in a base that has __dealloc__

    def __dealloc__(self):
        # The last owner of a pool waits for the device, which may wait for a thread that needs the GIL.
        with nogil:
            self._resource.reset()
            self._calls.reset()

    cdef lib.memory_resource* made(self) except NULL nogil:
        """The C++ resource; RuntimeError if ``__init__`` has not made it."""
        if self._resource.get() == NULL:
            with gil:
                raise RuntimeError(f"this {type(self).__name__} was never initialised: call super().__init__(…)")
        return self._resource.get()

    def allocate(self, nbytes, stream=DEFAULT_STREAM, alignment=256) -> int:
        """Allocate device memory in stream order.

        Parameters
        ----------
        nbytes : int
            Size in bytes. 0 gives the null pointer, 0.
        stream : Stream or any framework's stream
            The memory is usable by work queued on it from now on.
        alignment : int
            The address is a multiple of it, and of 256; a power of two.

        Returns
        -------
        int
            The address.

        Raises
        ------
        OutOfMemoryError
            The resource has no memory to give. It is a MemoryError and carries the figures.
        CudaError
            The driver failed for another reason.
        ValueError
            `alignment` is no power of two, or `stream` is another device's and the resource orders memory itself.
        """
        cdef Stream on = as_stream(stream)
        cdef size_t bytes = bytes_argument("nbytes", nbytes)
        cdef size_t aligned = bytes_argument("alignment", alignment)
        cdef void* pointer = self.made().allocate_at_once(on._handle, bytes, aligned)
        if pointer == NULL:
            pointer = self._allocate_waiting(on, bytes, aligned)
        return <uintptr_t> pointer

    cdef shared_ptr[lib.memory_resource] held(self) except *:
        """As `made`, for a call that lets others run: one of them may initialise this object anew."""
        self.made()
        return self._resource

    cdef void* _allocate_waiting(self, Stream on, size_t bytes, size_t alignment) except? NULL:
        """Allocate where that may wait, or call functions of the program's."""
        cdef lib.interrupt_scope interrupts
        cdef void* pointer
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            pointer = held.get().allocate(on._handle, bytes, alignment)
            if interrupts.has_interrupt():
                held.get().deallocate(on._handle, pointer, bytes, alignment)
            held.reset()  # which may end it, and wait
        interrupts.end()
        return pointer

    def deallocate(self, ptr, nbytes, stream=DEFAULT_STREAM, alignment=256) -> None:
        """Free memory in stream order.

        Parameters
        ----------
        ptr : int
            What `allocate` returned.
        nbytes : int
            The size that it was allocated with, in bytes.
        stream : Stream or any framework's stream
            Work queued on it so far may still use the memory.
        alignment : int
            The alignment that it was allocated with.

        Raises
        ------
        ValueError
            `alignment` is no power of two. Nothing is freed.

        Notes
        -----
        A pointer that the resource did not give out, or that was freed already, is reported once on stderr.
        """
        cdef Stream on = as_stream(stream)
        cdef uintptr_t pointer = address_argument("ptr", ptr)
        cdef size_t bytes = bytes_argument("nbytes", nbytes)
        cdef size_t aligned = bytes_argument("alignment", alignment)
        if not lib.is_power_of_two(aligned):
            raise ValueError(f"alignment must be a power of two, not {aligned}")
        if not self.made().deallocate_at_once(on._handle, <void*> pointer, bytes, aligned):
            self._deallocate_waiting(on, <void*> pointer, bytes, aligned)

    cdef int _deallocate_waiting(self, Stream on, void* pointer, size_t bytes, size_t alignment) except -1:
        """Free where that may wait, or call functions of the program's."""
        cdef lib.interrupt_scope interrupts
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            held.get().deallocate(on._handle, pointer, bytes, alignment)
            held.reset()
        interrupts.end()
        return 0

    @property
    def device(self) -> int:
        """The device whose memory this is."""
        return self.made().device()

    @property
    def specification(self) -> str:
        """The whole stack, outermost first, such as ``"statistics | pool:max=8GiB | virtual"``."""
        return lib.describe(dereference(self.made())).decode()

    @property
    def is_host_accessible(self) -> bool:
        """Whether the host can read and write the memory."""
        return self.made().is_host_accessible()

    def state(self) -> MemoryState:
        """The figures of the resource and of its device. Asks the driver."""
        cdef lib.memory_state s
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            s = held.get().state()
            held.reset()
        return MemoryState(figure(s.in_use), figure(s.held), figure(s.limit), figure(s.largest_free),
                           figure(s.device_free), figure(s.device_total))

    def in_use(self) -> int | None:
        """Bytes handed out and not yet freed; None where the resource does not know."""
        return self.state().in_use

    def largest_free(self) -> int | None:
        """Bytes of the largest block that could be handed out without growing; None where it does not know."""
        return self.state().largest_free

    def trim(self, keep_bytes=0, wait=False) -> int:
        """Give unused memory back towards the device until at most `keep_bytes` are held.

        Memory that work of the device may still use goes back at a later call of the resource, once that work is done.

        Parameters
        ----------
        keep_bytes : int
            As many bytes may stay held.
        wait : bool
            Wait for all work of the device first, so that all unused memory goes back at once. While a capture is known
            to be under way nothing is waited for.

        Returns
        -------
        int
            The bytes given back.
        """
        cdef size_t kept = bytes_argument("keep_bytes", keep_bytes)
        cdef bint waits = bool(wait)
        cdef size_t released
        cdef lib.interrupt_scope interrupts
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            released = held.get().trim(kept, waits)
            held.reset()
        interrupts.end()
        return released

    def check(self) -> None:
        """Verify the bookkeeping of the whole stack; RuntimeError names the invariant that does not hold."""
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            held.get().check()
            held.reset()

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied: its memory is this process's. Pickle a "
                        "specification and make a resource of it with cenote.mr.from_spec; in this process pass it on "
                        "as it is")

    def __eq__(self, other) -> bool:
        """Whether both stand for the same resource."""
        return (isinstance(other, DeviceMemoryResource)
                and (<DeviceMemoryResource> other)._resource.get() == self._resource.get())

    def __hash__(self) -> int:
        return hash(<uintptr_t> self._resource.get())

    def __repr__(self) -> str:
        return f"<cenote.mr.{type(self).__name__} '{self.specification}' on device {self.device}>"

    def _repr_html_(self) -> str:
        """The specification and the figures, as a notebook shows them."""
        from html import escape

        rows = "".join(f"<tr><td>{name.replace('_', ' ')}</td><td style='text-align:right'>{value:,}</td></tr>"
                       for name, value in asdict(self.state()).items() if value is not None)
        return f"<p><code>{escape(self.specification)}</code>, device {self.device}, bytes</p><table>{rows}</table>"


cdef class UpstreamResourceAdaptor(DeviceMemoryResource):
    """A resource that stands on another one, `upstream_mr`, and keeps it alive."""

    def __cinit__(self, *args, **kwargs):
        pass  # as above

    def __dealloc__(self):
        self._leases.drop(<PyObject*> self)

    cdef int hold_lease(self, shared_ptr[lib.memory_resource] lease, DeviceMemoryResource of, long users) except -1:
        """The C++ resource has so many copies of a lease of another resource, which `resource_argument` made."""
        if of._standing.get() != NULL:
            if self._standing.get() == NULL:
                self._standing = make_shared[lib.standing]()
            self._leases.hold(lease, <PyObject*> of, of._standing, users, <PyObject*> self, let_go)
        return 0

    def get_upstream(self) -> DeviceMemoryResource:
        """The resource under this one."""
        self.made()
        return self.upstream_mr


cdef shared_ptr[lib.memory_resource] resource_argument(str name, object resource) except *:
    """The C++ resource of an argument, or a lease of it; TypeError if it is none, RuntimeError if it was never made."""
    if not isinstance(resource, DeviceMemoryResource):
        raise TypeError(f"{name} must be a memory resource, not {type(resource).__name__}")
    if (<DeviceMemoryResource> resource)._resource.get() == NULL:
        raise RuntimeError(f"{name}: this {type(resource).__name__} was never initialised: call super().__init__(…)")
    if (<DeviceMemoryResource> resource)._standing.get() != NULL:
        return lib.lease_of((<DeviceMemoryResource> resource)._resource, <PyObject*> resource,
                            (<DeviceMemoryResource> resource)._standing)
    return (<DeviceMemoryResource> resource)._resource


cdef shared_ptr[lib.memory_resource] upstream_argument(object upstream_mr) except *:
    if upstream_mr is None:
        raise TypeError("Argument `upstream_mr` must not be None: it must be a memory resource, not NoneType")
    return resource_argument("Argument `upstream_mr`", upstream_mr)


cdef bint owns_resource(DeviceMemoryResource self) noexcept:
    return lib.is_owned_alone(self._resource, self._standing)


# Counts no reference of its own: the collector forbids it. `argument` is borrowed.
cdef int traverse_leases(UpstreamResourceAdaptor self, visitproc visit, void* argument) noexcept:
    cdef int result = _traversal_of_adaptors(<PyObject*> self, visit, argument)
    if result == 0 and owns_resource(self):
        result = self._leases.visit(visit, argument)
    return result


# Classes that derive from this one call it.
cdef traverseproc _traversal_of_adaptors = (<PyTypeObject*> UpstreamResourceAdaptor).tp_traverse
(<PyTypeObject*> UpstreamResourceAdaptor).tp_traverse = <traverseproc> traverse_leases


cdef void let_go(object holder) noexcept:
    """End a resource that is garbage, after what stands on it (python_lease.hpp)."""
    cdef UpstreamResourceAdaptor self = holder
    cdef shared_ptr[lib.memory_resource] ended
    lib.let_go_of_all(dereference(self._standing))
    if self._resource.use_count() != 1:
        return
    ended.swap(self._resource)
    with nogil:
        ended.reset()
    self._calls.reset()
    self._leases.drop(<PyObject*> self)


# The Python class of each kind of C++ resource, added by the modules that define them.
_classes = {}


cdef register_class(str kind, object cls):
    _classes[kind] = cls


cdef become(DeviceMemoryResource resource, shared_ptr[lib.memory_resource]& made):
    """The resource is from now on what ``__init__`` has made; what it was before is left in `made`, and ended."""
    resource._resource.swap(made)
    remember(resource)
    with nogil:
        made.reset()


cdef remember(DeviceMemoryResource resource):
    """A resource was made in Python: by ``__init__``, which has one more copy of the upstream."""
    global _last_unknown
    cdef UpstreamResourceAdaptor adaptor
    cdef shared_ptr[lib.memory_resource] under
    resource._standing.reset()
    if resource._calls.get() != NULL:
        resource._standing = make_shared[lib.standing]()
    if isinstance(resource, UpstreamResourceAdaptor):
        adaptor = resource
        adaptor._leases.drop(<PyObject*> adaptor)
        under = resource._resource.get().upstream()
        adaptor.hold_lease(under, adaptor.upstream_mr, under.use_count() - 2)
    _objects[<uintptr_t> resource._resource.get()] = resource
    _last_unknown = NULL


cdef DeviceMemoryResource known(const shared_ptr[lib.memory_resource]& resource):
    """The Python object of a C++ resource; None if nobody holds one."""
    global _last_known, _last_unknown
    if <const void*> resource.get() == _last_unknown:
        return None
    found = _last_known()
    if found is not None and (<DeviceMemoryResource> found)._resource.get() == resource.get():
        return found
    found = _objects.get(<uintptr_t> resource.get())
    if found is not None and (<DeviceMemoryResource> found)._resource.get() == resource.get():
        _last_known = ref(found)
        return found
    _last_unknown = <const void*> resource.get()
    return None


cdef DeviceMemoryResource wrap(shared_ptr[lib.memory_resource] resource):
    """The Python object of a C++ resource: the one that is known, else a new one of the class of its kind."""
    cdef DeviceMemoryResource wrapped = known(resource)
    if wrapped is not None:
        return wrapped
    other = UpstreamResourceAdaptor if resource.get().upstream().get() != NULL else DeviceMemoryResource
    cls = _classes.get(resource.get().kind().decode(), other)  # C++ programs may have kinds of their own
    wrapped = cls.__new__(cls)
    wrapped._resource = resource
    if issubclass(cls, UpstreamResourceAdaptor):
        (<UpstreamResourceAdaptor> wrapped).upstream_mr = wrap(resource.get().upstream())
    remember(wrapped)
    return wrapped


def first_in_stack(outermost, type cls not None):
    """The first resource of a class, from the outermost one down; None if there is none."""
    while outermost is not None and not isinstance(outermost, cls):
        outermost = outermost.upstream_mr if isinstance(outermost, UpstreamResourceAdaptor) else None
    return outermost
