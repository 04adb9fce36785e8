"""What every memory resource can do, and how C++ resources become Python objects. Documented in `cenote.mr`."""
from weakref import WeakValueDictionary, ref

cimport cython
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp.memory cimport make_shared, shared_ptr
from libcpp.optional cimport make_optional, optional
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport (
    address_argument,
    bytes_argument,
    count_argument,
    device_argument,
    int_argument,
    text_argument,
)
from cenote._core.libcenote cimport inquiry, Py_TYPE, PyObject, PyTypeObject, traverseproc, visitproc
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


def parse_bytes(str text not None) -> int:
    """A number of bytes from a text such as "1GiB"."""
    cdef optional[size_t] parsed = lib.parse_bytes(text.encode("utf-8", "replace"))
    if not parsed.has_value():
        shown = repr(text if len(text) <= 60 else text[:57] + "...")
        raise ValueError(f"Could not parse {shown} as a number of bytes: write 4096, '512MiB' or '1.5 GB'")
    return parsed.value()


def whole_number(str name, value, str wanted) -> int:
    """The int of an argument; TypeError, which says what is wanted, for what is none."""
    return int_argument(name, value, wanted)


cdef size_t required_size_argument(str name, object size) except? <size_t> -1:
    """A number of bytes from an int, or a text such as "1GiB"."""
    if isinstance(size, str):
        try:
            return parse_bytes(size)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return count_argument(name, size, "a number of bytes as int, or a text such as '1GiB'")


cdef optional[size_t] size_argument(str name, object size) except *:
    """As `required_size_argument`; nothing for None."""
    cdef optional[size_t] none
    if size is None:
        return none
    return make_optional[size_t](required_size_argument(name, size))


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
        """The whole stack, outermost first, such as ``"statistics | pool:max=8GiB | cuda"``."""
        return lib.describe(dereference(self.made())).decode()

    @property
    def is_host_accessible(self) -> bool:
        """Whether the host can read and write the memory."""
        return self.made().is_host_accessible()

    def state(self) -> dict:
        """The figures of the resource, in bytes; None for what it does not know.

        Returns
        -------
        dict
            ``in_use``, ``held``, ``limit``, ``largest_free``, ``device_free``, ``device_total``.
        """
        cdef lib.memory_state s
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            s = held.get().state()
            held.reset()
        return {
            "in_use": figure(s.in_use),
            "held": figure(s.held),
            "limit": figure(s.limit),
            "largest_free": figure(s.largest_free),
            "device_free": figure(s.device_free),
            "device_total": figure(s.device_total),
        }

    def in_use(self) -> int | None:
        """Bytes handed out and not yet freed; None where the resource does not know."""
        return self.state()["in_use"]

    def largest_free(self) -> int | None:
        """Bytes of the largest block that could be handed out without growing; None where it does not know."""
        return self.state()["largest_free"]

    def trim(self, keep_bytes=0) -> int:
        """Give unused memory back towards the device until at most `keep_bytes` are held.

        Returns
        -------
        int
            The bytes given back.
        """
        cdef size_t kept = bytes_argument("keep_bytes", keep_bytes)
        cdef size_t released
        cdef lib.interrupt_scope interrupts
        cdef shared_ptr[lib.memory_resource] held = self.held()
        with nogil:
            released = held.get().trim(kept)
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


ctypedef PyTypeObject* class_address

# What each class visits and clears without what is added here. Classes are never unloaded.
cdef unordered_map[class_address, traverseproc] _traversals
cdef unordered_map[class_address, inquiry] _clears


cdef PyTypeObject* collected_class(PyTypeObject* cls) noexcept:
    """The class, or the one that it derives from, that `collect_calls` was told of."""
    while _traversals.count(cls) == 0:
        cls = cls.tp_base
    return cls


cdef bint owns_resource(DeviceMemoryResource self) noexcept:
    return lib.is_owned_alone(self._resource, self._standing)


# None of these counts a reference of its own: the collector forbids it. Arguments are borrowed.
cdef int traverse_calls(DeviceMemoryResource self, visitproc visit, void* argument) noexcept:
    cdef int result = _traversals[collected_class(Py_TYPE(<PyObject*> self))](<PyObject*> self, visit, argument)
    if result == 0 and self._calls.get() != NULL and owns_resource(self):
        result = self._calls.get().visit(visit, argument)
    return result


cdef int clear_calls(DeviceMemoryResource self) noexcept:
    cdef inquiry also = _clears[collected_class(Py_TYPE(<PyObject*> self))]
    if self._calls.get() != NULL and owns_resource(self) and self._standing.get().holders.empty():
        self._calls.get().clear()
    return also(<PyObject*> self) if also != NULL else 0


cdef int traverse_leases(UpstreamResourceAdaptor self, visitproc visit, void* argument) noexcept:
    cdef int result = _traversal_of_adaptors(<PyObject*> self, visit, argument)
    if result == 0 and owns_resource(self):
        result = self._leases.visit(visit, argument)
    return result


cdef collect_calls(object cls):
    """Let Python's collector see the `_calls` of a class (python_lease.hpp)."""
    cdef PyTypeObject* slots = <PyTypeObject*> cls
    if slots.tp_traverse == NULL:
        raise TypeError(f"{cls.__name__} is not known to the collector: it needs a member that is an object")
    _traversals[slots] = slots.tp_traverse
    _clears[slots] = slots.tp_clear
    slots.tp_traverse = <traverseproc> traverse_calls
    slots.tp_clear = <inquiry> clear_calls


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


@cython.internal
@cython.final
cdef class LastCalls:
    """Garbage together with the resource that has it: what stands on that lets go while its functions still work."""

    cdef vector[shared_ptr[lib.standing]] _standing  # several where the resource was initialised anew
    cdef object _unused  # the collector finalizes only what could be a part of a cycle

    def __del__(self):
        cdef size_t i
        for i in range(self._standing.size()):
            lib.let_go_of_all(dereference(self._standing[i]))


cdef object last_calls(DeviceMemoryResource resource, object before):
    """What the resource has for that; `before` is what it had when it was initialised last, or None."""
    cdef LastCalls made = LastCalls.__new__(LastCalls) if before is None else before
    made._standing.push_back(resource._standing)
    return made


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


def from_spec(str text not None, device=None) -> DeviceMemoryResource:
    """Make the resources that a specification describes.

    Parameters
    ----------
    text : str
        Resources, outermost first, such as ``"statistics | pool:initial=1GiB,max=50% | cuda"``. Sizes are in bytes, or
        have a unit (KB = 1000, KiB = 1024), or are a percentage of the device's free memory; those of a pool are rounded
        down to 256. A chain that ends with a resource that needs an upstream stands on ``cuda``.
    device : int, optional
        The device; the current one if not given.

    Returns
    -------
    DeviceMemoryResource
        The outermost one.

    Raises
    ------
    ValueError
        Names the word that is wrong and the words that are known.
    IndexError
        There is no such device.
    """
    cdef lib.string specification = text_argument("text", text)
    cdef shared_ptr[lib.memory_resource] resource
    cdef bint given = device is not None
    cdef int on = device_argument(device) if given else 0
    with nogil:
        resource = lib.make_resource(specification, on if given else lib.current_device())
    return wrap(resource)


def check_specification(str text not None) -> None:
    """ValueError, as `from_spec` raises it, for a word or a value that is wrong. Makes nothing and calls no driver."""
    cdef lib.string specification = text_argument("text", text)
    with nogil:
        lib.check_specification(specification)


def known_specifications() -> str:
    """Each resource that a specification can name, with its parameters, one a line."""
    return lib.known_specifications().decode()
