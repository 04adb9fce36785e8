"""How gdb and cuda-gdb show cenote's containers, streams and resources.

gdb loads this file by itself where it lies beside libcenote.so and is in a folder that gdb trusts
(``add-auto-load-safe-path``); ``source`` loads it anywhere.

What is shown is where a container is, how large, and whose memory it has. ``set cenote-elements 10`` shows the first
elements, too, as far as they can be read: plain gdb cannot read the memory of a device.
"""

import re

import gdb
import gdb.printing

_LEGACY_DEFAULT_STREAM, _PER_THREAD_DEFAULT_STREAM = 1, 2


class _Elements(gdb.Parameter):
    """How many elements of a typed container are read from its memory and shown; 0 for none."""

    set_doc = "Set how many elements of cenote's typed containers are shown."
    show_doc = "Show how many elements of cenote's typed containers are shown."

    def __init__(self):
        super().__init__("cenote-elements", gdb.COMMAND_DATA, gdb.PARAM_ZUINTEGER)
        self.value = 0

    def get_set_string(self):
        return ""

    def get_show_string(self, value):
        return f"{value} elements of cenote's typed containers are shown."


_elements = _Elements()


def _bytes_text(count):
    for unit, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} B"


def _stream_text(reference):
    handle = int(reference["handle_"])
    if handle <= _LEGACY_DEFAULT_STREAM:
        return "the legacy default stream"
    if handle == _PER_THREAD_DEFAULT_STREAM:
        return "the per-thread default stream"
    return f"stream {handle:#x}"


def _class_of(pointer):
    """Name the object's own class, without its namespace."""
    try:
        table = int(pointer.cast(gdb.lookup_type("unsigned long").pointer()).dereference())
        symbol = gdb.execute(f"info symbol {table:#x}", to_string=True)
        found = re.match(r"vtable for ([\w:]+)", symbol)
        return found[1].rpartition("::")[2] if found else "memory_resource"
    except gdb.error:
        return "memory_resource"


def _device_of(pointer):
    """Read the device of a resource: the first member after the pointer to the virtual table."""
    word = gdb.lookup_type("unsigned long")
    return int((pointer.cast(word.pointer()) + 1).cast(gdb.lookup_type("int").pointer()).dereference())


def _resource_text(pointer):
    # Of a class with virtual functions a compiler describes the members only where the first of them is compiled, which
    # is in the library; so this must do without.
    try:
        return f"{_class_of(pointer)} of device {_device_of(pointer)}"
    except gdb.error:
        return "a resource that cannot be read"


def _resource_of(shared):
    """Take the plain pointer out of a std::shared_ptr of libstdc++ or libc++; None if it is neither."""
    for member in ("_M_ptr", "__ptr_"):
        try:
            return shared[member]
        except gdb.error:
            continue
    return None


def _where_text(buffer):
    """Whose memory a buffer has, on which device, in which stream's order."""
    resource = _resource_of(buffer["resource_"])
    if not resource:
        return "moved from"
    return f"{_resource_text(resource)}, {_stream_text(buffer['stream_']['handle_'])}"


class DeviceBuffer:
    """``cenote::device_buffer``."""

    def __init__(self, value):
        self._value = value

    def to_string(self):
        size, capacity = int(self._value["size_"]), int(self._value["capacity_"])
        return (
            f"device_buffer of {size} bytes ({_bytes_text(size)}), capacity {capacity}, "
            f"at {int(self._value['data_']):#x}, {_where_text(self._value)}"
        )


def _read_elements(address, element, count):
    """As many of the first elements as can be read: (index, value) in turn."""
    pointer = gdb.Value(address).cast(element.pointer())
    for index in range(count):
        try:
            value = (pointer + index).dereference()
            value.fetch_lazy()
        except gdb.error:  # device memory under plain gdb
            return
        yield index, value


class DeviceVector:
    """``cenote::device_uvector<T>``."""

    name = "device_uvector"

    def __init__(self, value):
        self._element = value.type.strip_typedefs().template_argument(0)
        self._buffer = value["buffer_"]

    def _size(self):
        return int(self._buffer["size_"]) // self._element.sizeof

    def to_string(self):
        capacity = int(self._buffer["capacity_"]) // self._element.sizeof
        return (
            f"{self.name}<{self._element}> of {self._size()} elements, capacity {capacity}, "
            f"at {int(self._buffer['data_']):#x}, {_where_text(self._buffer)}"
        )

    def children(self):
        count = min(self._size(), _elements.value or 0)
        for index, value in _read_elements(int(self._buffer["data_"]), self._element, count):
            yield f"[{index}]", value


class DeviceScalar(DeviceVector):
    """``cenote::device_scalar<T>``."""

    def __init__(self, value):
        super().__init__(value["element_"])

    def to_string(self):
        return f"device_scalar<{self._element}> at {int(self._buffer['data_']):#x}, {_where_text(self._buffer)}"


class StreamRef:
    """``cenote::stream_ref``."""

    def __init__(self, value):
        self._value = value

    def to_string(self):
        return _stream_text(self._value)


class CudaStream:
    """``cenote::cuda_stream``."""

    def __init__(self, value):
        self._value = value

    def to_string(self):
        handle, device = int(self._value["handle_"]), int(self._value["device_"])
        return f"cuda_stream {handle:#x} of device {device}" if handle else "cuda_stream, moved from"


class Resource:
    """Every resource and adaptor."""

    def __init__(self, value):
        self._value = value

    def to_string(self):
        return f"{_resource_text(self._value.address)}, at {int(self._value.address):#x}"


def _printers():
    printers = gdb.printing.RegexpCollectionPrettyPrinter("cenote")
    for pattern, printer in (
        (r"device_buffer", DeviceBuffer),
        (r"device_uvector<.*>", DeviceVector),
        (r"device_scalar<.*>", DeviceScalar),
        (r"stream_ref", StreamRef),
        (r"cuda_stream", CudaStream),
        (r"(\w+_)?memory_resource", Resource),
        (r"\w+_resource_adaptor", Resource),
    ):
        printers.add_printer(pattern, rf"^cenote::v[0-9]+::{pattern}$", printer)  # the inline namespace
    return printers


gdb.printing.register_pretty_printer(gdb.current_objfile(), _printers(), replace=True)
