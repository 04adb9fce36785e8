"""DLPack: a buffer handed to any array library, by the Python array API standard."""
from cenote._core cimport libcenote as lib
from cenote._core.arguments cimport int_argument
from cenote._core.buffer_memory cimport BufferMemory, Export, wait_for
from cenote._core.stream cimport Stream, as_stream


cdef tuple dl_device_of(BufferMemory memory):
    """What DLPack calls the memory: a device type and a number."""
    cdef lib.memory_kind kind
    cdef void* data = memory.made().data()
    cdef int device = memory.made().device()
    if data == NULL:
        is_for_host = memory.made().resource().get().is_host_accessible()
        kind = lib.memory_kind.pinned if is_for_host else lib.memory_kind.device
    else:
        with nogil:
            kind = lib.kind_of(data, device)
    if kind == lib.memory_kind.device:
        return <int> lib.dl_device_type.cuda, device
    if kind == lib.memory_kind.managed:
        return <int> lib.dl_device_type.cuda_managed, 0
    if kind == lib.memory_kind.pinned:
        return <int> lib.dl_device_type.cuda_host, 0
    return <int> lib.dl_device_type.cpu, 0


cdef object dl_capsule_of(BufferMemory buffer, object stream, object max_version, object dl_device, object copy):
    """What ``DeviceBuffer.__dlpack__`` returns; `buffer` is one."""
    own = buffer.__dlpack_device__()
    cdef int device = buffer.made().device()
    on_host = (<int> lib.dl_device_type.cpu, 0)
    on_device = (<int> lib.dl_device_type.cuda, device)
    wanted = own if dl_device is None else pair_argument("dl_device", dl_device)
    cdef bint versioned = max_version is not None and pair_argument("max_version", max_version)[0] >= 1
    cdef bint is_copy = copy is not None and bool(copy)
    cdef bint is_shareable = wanted == own or wanted == on_device or (wanted == on_host and own != on_device)
    if stream is not None and stream == 0:
        raise ValueError("stream 0 is ambiguous in DLPack: 1 is the legacy default stream, 2 the per-thread one")
    if wanted == on_host and (is_copy or not is_shareable):
        if copy is not None and not copy:
            raise BufferError(f"memory of device {device} cannot be shared with the host without a copy")
        return host_capsule(buffer, versioned)
    if not is_shareable:
        raise BufferError(f"memory of DLPack device {own} cannot be exported to DLPack device {wanted}")
    cdef BufferMemory exported = buffer.copy() if is_copy else buffer
    owner = Export(exported)  # from here on the memory stays where it is
    hand_over(exported, stream, wanted == on_host, own != on_device and wanted != on_device)
    return lib.make_dl_capsule(owner, exported._address(), exported.made().size(),
                               <lib.dl_device_type> <int> wanted[0], wanted[1], versioned, is_copy)


cdef tuple pair_argument(str name, object pair):
    """Two ints; ValueError unless there are two, TypeError for what is no sequence of them."""
    if not hasattr(pair, "__iter__"):
        raise TypeError(f"{name} must be two ints, not {type(pair).__name__}")
    numbers = tuple([int_argument(f"{name} must be two ints: one of them", number) for number in pair])
    if len(numbers) != 2:
        raise ValueError(f"{name} must be two numbers, not {len(numbers)}")
    return numbers


cdef object host_capsule(BufferMemory buffer, bint versioned):
    """A DLPack capsule of a copy on the host, finished on return."""
    cdef Stream on = buffer._stream_here()
    cdef unsigned char[::1] copied = buffer.copy_to_host(stream=on)
    wait_for(on, buffer.made().device())
    cdef void* data = <void*> &copied[0] if copied.shape[0] != 0 else NULL
    return lib.make_dl_capsule(copied.base, data, copied.shape[0], lib.dl_device_type.cpu, 0, versioned, True)


cdef hand_over(BufferMemory memory, object stream, bint to_host, bint maybe_to_host):
    """Make the memory ready for a consumer on `stream`, or on the host."""
    cdef Stream on
    cdef lib.device_buffer* buffer
    if stream is not None and stream == -1:
        memory._is_shared = True
        memory._used_by = lib.reach.every_device  # as it names no stream
        return
    on = as_stream(1 if stream is None else stream)
    if to_host or (maybe_to_host and stream is None):
        memory._synchronize()
        return
    if memory._is_on(on):
        return
    buffer = memory._begin()
    try:
        with nogil:
            buffer.begin_use(on._handle)
    finally:
        memory._users -= 1
    memory._share_with(on)
