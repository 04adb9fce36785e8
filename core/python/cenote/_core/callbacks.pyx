"""Resources that call Python functions, and how the collector sees those. Documented in `cenote.mr`."""
import inspect

cimport cython
from cython.operator cimport dereference
from libc.stdint cimport uintptr_t
from libcpp cimport bool
from libcpp.memory cimport make_shared, shared_ptr, static_pointer_cast
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport address_argument, count_argument
from cenote._core.libcenote cimport inquiry, Py_TYPE, PyObject, PyTypeObject, traverseproc, visitproc
from cenote._core.memory_resource cimport (
    DeviceMemoryResource,
    UpstreamResourceAdaptor,
    become,
    owns_resource,
    register_class,
    upstream_argument,
)
from cenote._core.stream cimport Stream


ctypedef PyTypeObject* class_address

# What each class visits and clears without what is added here. Classes are never unloaded.
cdef unordered_map[class_address, traverseproc] _traversals
cdef unordered_map[class_address, inquiry] _clears


cdef PyTypeObject* collected_class(PyTypeObject* cls) noexcept:
    """The class, or the one that it derives from, that `collect_calls` was told of."""
    while _traversals.count(cls) == 0:
        cls = cls.tp_base
    return cls


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


cdef collect_calls(object cls):
    """Let Python's collector see the `_calls` of a class (python_lease.hpp)."""
    cdef PyTypeObject* slots = <PyTypeObject*> cls
    if slots.tp_traverse == NULL:
        raise TypeError(f"{cls.__name__} is not known to the collector: it needs a member that is an object")
    _traversals[slots] = slots.tp_traverse
    _clears[slots] = slots.tp_clear
    slots.tp_traverse = <traverseproc> traverse_calls
    slots.tp_clear = <inquiry> clear_calls


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


cdef class CallbackMemoryResource(DeviceMemoryResource):
    """Memory from two Python functions, on the current device.

    Parameters
    ----------
    allocate_func : callable
        ``allocate_func(size, stream)`` returns the address of `size` bytes, a multiple of 256, usable on `stream` (a
        `cenote.Stream`).
        One that takes three arguments is called as ``allocate_func(stream, size, alignment)``. It raises MemoryError
        when it has no memory; any other Exception reaches the caller as RuntimeError with the original as its cause,
        and what is no Exception (KeyboardInterrupt, SystemExit) as it is.
    deallocate_func : callable
        ``deallocate_func(ptr, size, stream)``, or with four arguments ``deallocate_func(stream, ptr, size,
        alignment)``. An Exception that it raises is reported through ``sys.unraisablehook``, and the memory counts as
        freed. KeyboardInterrupt and SystemExit reach whoever called for the free, and are reported where nobody did:
        where an object died.

    Raises
    ------
    TypeError
        If one of them cannot be called like that.
    """

    cdef readonly object allocate_func
    cdef readonly object deallocate_func
    cdef object _last_calls

    def __init__(self, allocate_func, deallocate_func):
        cdef shared_ptr[lib.memory_resource] fresh
        aligned = (takes_alignment("allocate_func", allocate_func, 2),
                   takes_alignment("deallocate_func", deallocate_func, 3))
        calls = (allocate_func, deallocate_func, *aligned)
        cdef shared_ptr[lib.python_object] shared = make_shared[lib.python_object](<lib.PyObject*> calls)
        cdef lib.allocate_function allocate = lib.python_allocate_function(shared, call_allocate)
        cdef lib.deallocate_function deallocate = lib.python_free_function(shared, call_deallocate)
        with nogil:
            fresh = static_pointer_cast[lib.memory_resource, lib.callback_memory_resource](
                lib.make_shared[lib.callback_memory_resource](allocate, deallocate))
        self._calls = shared
        self.allocate_func = allocate_func
        self.deallocate_func = deallocate_func
        become(self, fresh)
        self._last_calls = last_calls(self, self._last_calls)


cdef takes_alignment(str name, object function, int fewest):
    """Whether `function` wants one argument more than `fewest`, the alignment."""
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions do not tell
        return False
    for count in (fewest, fewest + 1):
        try:
            signature.bind(*range(count))
            return count != fewest
        except TypeError:
            continue
    raise TypeError(f"{name} must take {fewest} arguments, or {fewest + 1} with the alignment; it takes {signature}")


cdef void* call_allocate(object calls, lib.stream_ref on, size_t bytes) except? NULL:
    cdef object stream = Stream(<uintptr_t> on.value())
    function, _, aligned, _ = calls
    address = function(stream, bytes, _alignment) if aligned else function(bytes, stream)
    return <void*> <uintptr_t> returned_address(function, bytes, address)


cdef size_t returned_address(object function, size_t bytes, object address) except? <size_t> -1:
    """What allocate_func returned; who forgot the `return` is told so."""
    if address is None:
        raise TypeError(f"allocate_func must return the address of {bytes} bytes as int, not None: "
                        f"{function!r} returned nothing (to say that there is no memory, raise MemoryError)")
    return address_argument("what allocate_func returns", address)


cdef void call_deallocate(object calls, lib.stream_ref on, void* pointer, size_t bytes) except *:
    cdef object stream = Stream(<uintptr_t> on.value())
    _, function, _, aligned = calls
    if aligned:
        function(stream, <uintptr_t> pointer, bytes, _alignment)
    else:
        function(<uintptr_t> pointer, bytes, stream)


_alignment = 256  # what the functions are asked for; more is made of it in C++


cdef bool ask_with_bytes(object calls, size_t bytes, lib.stream_ref stream, size_t tries) except *:
    callback, = calls
    return callback(bytes)


cdef bool ask_with_stream_and_try(object calls, size_t bytes, lib.stream_ref stream, size_t tries) except *:
    callback, = calls
    return callback(bytes, Stream(<uintptr_t> stream.value()), tries)


cdef object takes(object signature, int count):
    """Whether a function of that signature can be called with so many arguments."""
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


cdef lib.failure_callback_body body_for(object callback) except *:
    """How to call it: with the bytes alone if it can be, as RMM does, else with the bytes, the stream and the try."""
    if not callable(callback):
        raise TypeError(f"Argument `callback` must be callable, not {type(callback).__name__}")
    try:
        signature = inspect.signature(callback)
    except (TypeError, ValueError):  # some of C's functions have none
        return ask_with_bytes
    if takes(signature, 1):
        return ask_with_bytes
    if takes(signature, 3):
        return ask_with_stream_and_try
    raise TypeError("Argument `callback` must take one argument (nbytes) or three (nbytes, stream, try number)")


cdef class FailureCallbackResourceAdaptor(UpstreamResourceAdaptor):
    """Asks a function for help when memory ran out, and tries again.

    When the upstream has no memory it is first told to give unused memory back, and asked again if it did. Then the
    callback is called, which may free memory or spill. After `max_tries` calls memory has run out.

    Parameters
    ----------
    upstream_mr : DeviceMemoryResource
        The resource that allocates.
    callback : callable
        Called as ``callback(nbytes)``; if it needs three arguments, as ``callback(nbytes, stream, tries)`` with a
        `Stream` and the number of the call for this allocation, from 1. True means try again, False give up. A
        MemoryError that it raises reaches the caller, and so does what is no Exception, such as KeyboardInterrupt; any
        other exception does as the cause of a RuntimeError.
    max_tries : int, default 64
        How often it is called at the most for one allocation.

    Raises
    ------
    TypeError
        If `callback` cannot be called so.
    """

    cdef object _callback
    cdef object _last_calls

    def __init__(self, upstream_mr, callback, max_tries=64):
        cdef shared_ptr[lib.memory_resource] fresh
        cdef shared_ptr[lib.memory_resource] upstream = upstream_argument(upstream_mr)
        cdef lib.failure_callback_body body = body_for(callback)
        cdef size_t tries = count_argument("max_tries", max_tries)
        calls = (callback,)
        cdef shared_ptr[lib.python_object] shared = lib.make_shared[lib.python_object](<lib.PyObject*> calls)
        fresh = static_pointer_cast[lib.memory_resource, lib.failure_callback_resource_adaptor](
            lib.make_shared[lib.failure_callback_resource_adaptor](
                upstream, lib.python_function(shared, body), tries))
        self._calls = shared
        self.upstream_mr = upstream_mr
        self._callback = callback
        become(self, fresh)
        self._last_calls = last_calls(self, self._last_calls)


collect_calls(CallbackMemoryResource)
collect_calls(FailureCallbackResourceAdaptor)

register_class("callback", CallbackMemoryResource)
register_class("failure_callback", FailureCallbackResourceAdaptor)
