"""The handle of a shared block in the 64 bytes that a handle of the driver's has, which is all that Numba passes on."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["RAW_BYTES", "RawHandle", "pack_handle", "unpack_handle"]

_MAGIC = b"cenote\x00\x01"
_FORM = struct.Struct("<8sIQQQ16sQ4x")  # magic, process, endpoint, number, key, device, bytes
_TEXT = "cenote-block:1:cenote-{owner}-{endpoint}:{owner}:{number}:{key}:{device}:{size}"
RAW_BYTES = _FORM.size
"""Of every handle."""


@dataclass(frozen=True)
class RawHandle:
    """What Numba has a handle of the driver's for: to read its bytes."""

    reserved: bytes


def pack_handle(text: str) -> bytes:
    """Give the text of a handle as 64 bytes.

    Raises
    ------
    ValueError
        It is no handle of this version of cenote's.
    """
    try:
        _, _, endpoint, owner, number, key, device, size = text.split(":")
        random = endpoint.removeprefix(f"cenote-{owner}-")
        numbers = (int(each) for each in (owner, random, number, key))
        packed = _FORM.pack(_MAGIC, *numbers, bytes.fromhex(device), int(size))
    except (ValueError, struct.error) as error:
        raise ValueError(f"this is no handle of this version of cenote: {text!r}") from error
    if unpack_handle(packed) != text:
        raise ValueError(f"this is no handle of this version of cenote: {text!r}")
    return packed


def unpack_handle(packed: bytes) -> str | None:
    """Give the text of a handle that was packed; None for one that is the driver's own."""
    if len(packed) != _FORM.size or not packed.startswith(_MAGIC):
        return None
    _, owner, endpoint, number, key, device, size = _FORM.unpack(packed)
    return _TEXT.format(owner=owner, endpoint=endpoint, number=number, key=key, device=device.hex(), size=size)
