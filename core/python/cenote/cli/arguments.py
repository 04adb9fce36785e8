"""What the options of the command take: each text is read or refused before anything is done.

A refusal is `argparse.ArgumentTypeError`, to which argparse adds the option's name.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from pathlib import Path

from cenote._core.specification import check_specification
from cenote.logs.timeline import picture_format
from cenote.units import parse_bytes

__all__ = ["device", "limit", "path", "picture", "size", "specification"]

_PERCENTAGE = re.compile(r"[0-9]{1,3}(\.[0-9]{1,9})?%")


def path(text: str) -> Path:
    """Read the name of a file or folder."""
    if not text:
        raise ArgumentTypeError("a name is needed, not an empty text")
    return Path(text)


def page(text: str) -> Path:
    """Read the name of a page of HTML."""
    name = path(text)
    if name.suffix not in (".html", ".htm"):
        raise ArgumentTypeError(f"{_shown(text)} is no page of HTML: write a name that ends with .html")
    return name


def picture(text: str) -> Path:
    """Read the name of a picture, whose ending says its kind."""
    name = path(text)
    if text.endswith("/"):
        raise ArgumentTypeError(f"{_shown(text)} is the name of a folder")
    try:
        picture_format(name)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return name


def device(text: str) -> int:
    """Read the number of a device."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{_shown(text)} is no device: write its number, such as 0")
    return int(text)


def limit(text: str) -> str:
    """Read a size or a percentage, as a specification takes it."""
    size = text.strip()
    if _PERCENTAGE.fullmatch(size) and float(size[:-1]) <= 100:
        return size
    try:
        return str(parse_bytes(size))
    except ValueError:
        raise ArgumentTypeError(f"{_shown(text)} is no size: write 8GiB, 512MB or 50%") from None


def size(text: str) -> str:
    """Read a size in bytes."""
    try:
        return str(parse_bytes(text.strip()))
    except ValueError:
        raise ArgumentTypeError(f"{_shown(text)} is no size: write 8GiB, or 512MB") from None


def specification(text: str) -> str:
    """Read a specification of a resource."""
    try:
        check_specification(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def process(text: str) -> int:
    """Read the number of a process."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ArgumentTypeError(f"{_shown(text)} is no process: write its number")
    return int(text)


def seconds(text: str) -> float:
    """Read a time in seconds, from a hundredth to a day."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not 0.01 <= float(text) <= 86_400:
        raise ArgumentTypeError(f"{_shown(text)} is no time from 0.01 to 86400 seconds")
    return float(text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
