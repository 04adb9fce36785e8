"""Current resources. Documented in `cenote.mr` and `cenote.registry`."""
from libc.stdint cimport uintptr_t
from libcpp.memory cimport shared_ptr
from libcpp.optional cimport optional
from libcpp.vector cimport vector

from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport device_argument, text_argument
from cenote._core.memory_resource cimport DeviceMemoryResource, resource_argument, wrap

from cenote._core.specification import specification_words


cdef object wrap_or_none(shared_ptr[lib.memory_resource] resource):
    return wrap(resource) if resource.get() != NULL else None


def find_per_device_resource(device) -> DeviceMemoryResource | None:
    """The current resource of `device`; None if none has been set or asked for yet. Makes no driver call."""
    cdef shared_ptr[lib.memory_resource] current
    cdef int number = device_argument(device)
    with nogil:
        current = lib.find_per_device_resource(number)
    return wrap_or_none(current)


def get_per_device_resource(device) -> DeviceMemoryResource:
    """The current resource of `device`; IndexError if there is no such device."""
    cdef shared_ptr[lib.memory_resource] current
    cdef int number = device_argument(device)
    with nogil:
        current = lib.get_per_device_resource(number)
    return wrap(current)


def set_per_device_resource(device, mr) -> DeviceMemoryResource | None:
    """Make `mr` the current resource of `device`, for allocations from now on.

    Returns
    -------
    DeviceMemoryResource or None
        The previous one; None if none had been set or asked for.

    Raises
    ------
    IndexError
        If there is no such device.
    ValueError
        If `mr` is of another device.
    """
    cdef shared_ptr[lib.memory_resource] resource = resource_argument("mr", mr)
    cdef int number = device_argument(device)
    with nogil:
        resource = lib.set_per_device_resource(number, resource)
    return wrap_or_none(resource)


def reset_per_device_resource(device) -> DeviceMemoryResource | None:
    """Take the current resource of `device` away: the next one is made anew when it is asked for.

    It is made from `default_specification`.

    Returns
    -------
    DeviceMemoryResource or None
        The previous one; None if none had been set or asked for. It lives until its last block is freed.

    Raises
    ------
    IndexError
        If there is no such device.
    """
    cdef shared_ptr[lib.memory_resource] resource
    cdef int number = device_argument(device)
    with nogil:
        resource = lib.reset_per_device_resource(number)
    return wrap_or_none(resource)


def install_resource(str specification not None, device=None) -> None:
    """Have every device of the process, or one of them, use what a specification describes.

    What is current is replaced, unless it was made from the same text. The device that is named, that the calling
    thread has chosen, or that is the only one gets its resource now, the others when they are first used. Raises as
    `from_spec` does; then nothing has changed.
    """
    cdef lib.string text = text_argument("specification", specification)
    cdef bint given = device is not None
    cdef int on = device_argument(device) if given else 0
    cdef lib.interrupt_scope interrupts  # the end of a resource frees
    with nogil:
        if given:
            lib.install_on_device(on, text)
        else:
            lib.install_all_devices(text)
    interrupts.end()


def keep_to_device(device) -> None:
    """Say that this process is to use one device only, until something is installed for all.

    Takes the current resources of the others away; the first use of one of them is warned of. IndexError if there is no
    such device.
    """
    cdef int number = device_argument(device)
    cdef lib.interrupt_scope interrupts  # the end of a resource frees
    with nogil:
        lib.keep_to_device(number)
    interrupts.end()


def default_specification() -> str:
    """What the resource of a device is made from that has none.

    Returns
    -------
    str
        What was installed for all devices, else what the environment variable ``CENOTE_RESOURCE`` says, else
        ``"cuda"``.
    """
    cdef lib.string text
    with nogil:
        text = lib.default_specification()
    return text.decode("utf-8", "surrogateescape")


def set_default_specification(str specification) -> None:
    """For devices that have no resource; None for what the process began with. ValueError for a wrong text."""
    cdef lib.string text
    if specification is not None:
        specification_words(specification)  # an empty one is wrong here
        text = text_argument("specification", specification)
    with nogil:
        lib.set_default_specification(text)


def device_to_begin_with() -> int | None:
    """The device that the calling thread has chosen, or the only one there is; None where it is not known yet."""
    cdef optional[int] device
    with nogil:
        device = lib.device_to_begin_with()
    return device.value() if device.has_value() else None


def put_on_default(str word not None) -> None:
    """Put an adaptor, as a word of a specification, onto what devices get that have no resource, unless it has one."""
    words = specification_words(default_specification())
    kind = word.partition(":")[0]
    if kind not in [present.partition(":")[0].rstrip() for present in words]:
        set_default_specification(" | ".join([word, *words]))


def take_off_default(str kind not None) -> None:
    """Take an adaptor off what devices get that have no resource, if it is the outermost one."""
    words = specification_words(default_specification())
    if words[0].partition(":")[0].rstrip() == kind:
        set_default_specification(" | ".join(words[1:]))


def get_current_device_resource() -> DeviceMemoryResource:
    """The current resource of the device that is current on this thread."""
    cdef shared_ptr[lib.memory_resource] current
    with nogil:
        current = lib.get_current_device_resource()
    return wrap(current)


def set_current_device_resource(mr) -> DeviceMemoryResource | None:
    """Make `mr` the current resource of the device that is current on this thread; return the previous one, or None."""
    cdef shared_ptr[lib.memory_resource] resource = resource_argument("mr", mr)
    with nogil:
        resource = lib.set_current_device_resource(resource)
    return wrap_or_none(resource)


def reset_current_device_resource() -> DeviceMemoryResource | None:
    """Take the current resource of the device that is current on this thread away; return it, or None."""
    cdef shared_ptr[lib.memory_resource] resource
    with nogil:
        resource = lib.reset_current_device_resource()
    return wrap_or_none(resource)


def reset_all_device_resources() -> None:
    """Take the current resource of every device away, and what was installed for all devices.

    All is as it was when the process began. Makes no driver call of its own.
    """
    cdef lib.interrupt_scope interrupts  # the end of a resource frees
    with nogil:
        lib.reset_all_device_resources()
    interrupts.end()


cdef class ResourceScope:
    """While it is open, `resource` is the current one of its device for the thread that opened it."""

    cdef lib.resource_scope* _scope

    def __cinit__(self, resource):
        self._scope = new lib.resource_scope(resource_argument("resource", resource))

    def close(self) -> bool:
        """End it; False, and nothing has happened, if it is not the innermost one of the calling thread."""
        cdef lib.interrupt_scope interrupts  # the end of a resource frees
        if self._scope == NULL or not self._scope.is_innermost():
            return False
        with nogil:
            del self._scope
        self._scope = NULL
        interrupts.end()
        return True


def devices_with_resource() -> list[int]:
    """The devices whose current resource has been set or asked for, in order. Makes no driver call."""
    cdef vector[int] devices
    with nogil:
        devices = lib.devices_with_resource()
    return devices


def registry_address() -> int:
    """Where the one table of current resources lies in this process."""
    return <uintptr_t> lib.registry_address()
