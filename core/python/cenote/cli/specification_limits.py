"""The limits that a specification has, and the same one with others."""

from __future__ import annotations

from cenote._core.specification import specification_words
from cenote.units import parse_bytes

LIMITS = {"pool": "max", "arena": "size", "limiting": "limit"}
"""The parameter that limits a resource, by its kind."""


def limited(candidate: str, limit: int) -> str:
    """Give a pool the limit that the resource in force has."""
    return " | ".join([f"pool:max={spelled(limit)}", *specification_words(candidate)[1:]])


def kind_of(word: str) -> str:
    """Give the kind that a word of a specification names."""
    return word.partition(":")[0].strip()


def parameters_of(word: str) -> dict[str, str]:
    """Give the parameters of a word of a specification."""
    given = (each.partition("=") for each in word.partition(":")[2].split(",") if each.strip())
    return {name.strip(): value.strip() for name, _, value in given}


def limiting_kind(words: list[str]) -> str | None:
    """Give the kind of the outermost resource that has a limit."""
    return next((kind_of(w) for w in words if kind_of(w) in LIMITS and LIMITS[kind_of(w)] in parameters_of(w)), None)


def limit_of(specification: str) -> int | None:
    """Give the smallest limit of a specification in bytes; None where it has none, or one in percent."""
    limits = []
    for word in specification_words(specification):
        value = parameters_of(word).get(LIMITS.get(kind_of(word), ""))
        if value is not None and not value.endswith("%"):
            limits.append(parse_bytes(value))
    return min(limits, default=None)


def with_limit(specification: str, nbytes: int) -> str:
    """Raise each limit that is below so many bytes."""
    words = []
    for word in specification_words(specification):
        name = LIMITS.get(kind_of(word), "")
        parameters = parameters_of(word)
        if name in parameters and not parameters[name].endswith("%") and parse_bytes(parameters[name]) < nbytes:
            parameters[name] = spelled(nbytes)
            word = f"{kind_of(word)}:{','.join(f'{key}={value}' for key, value in parameters.items())}"
        words.append(word)
    return " | ".join(words)


def rounded_up(nbytes: int) -> int:
    """Round a size up to a multiple of about a hundredth of it, which is easily read."""
    step = max(1 << 20, 1 << max(0, nbytes.bit_length() - 6))
    return -(-nbytes // step) * step


def spelled(nbytes: int) -> str:
    """Spell a size as a specification has it."""
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if nbytes % size == 0:
            return f"{nbytes // size}{unit}"
    return str(nbytes)
