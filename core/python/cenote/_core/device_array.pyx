"""What an array in device memory says of itself: ``__cuda_array_interface__``, read with distrust."""
from cenote._core.arguments cimport address_argument, int_argument
from cenote._core.stream cimport as_stream


cdef tuple device_array(object array):
    """The address of a one-dimensional contiguous array, its bytes, and the Stream that it names, or None.

    ValueError if it has no interface or a malformed one, is not contiguous, or is masked.
    """
    import numpy as np

    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise ValueError("cuda_ary must be an array in device memory (__cuda_array_interface__), "
                         f"not {type(array).__name__}")
    try:
        if not isinstance(interface["typestr"], str):
            raise TypeError(f"typestr is {type(interface['typestr']).__name__}")
        item = np.dtype(interface["typestr"]).itemsize
        shape = [int_argument("an extent", extent) for extent in interface["shape"]]
        strides, mask = interface.get("strides"), interface.get("mask")
        address = address_argument("its address", interface["data"][0])
    except (AttributeError, LookupError, OverflowError, TypeError) as error:
        raise ValueError(f"the array has a malformed __cuda_array_interface__: {error!r}") from error
    if len(shape) > 1 or (strides and strides[0] != item) or (shape and shape[0] < 0):
        raise ValueError("expected a one-dimensional contiguous array")
    if mask is not None:
        raise ValueError("expected an array without a mask")
    written_on = interface.get("stream")
    bytes = item * (shape[0] if shape else 1)
    return address, bytes, None if written_on is None else as_stream(written_on)
