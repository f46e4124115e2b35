"""Errors that a user can mend."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(ValueError):
    """Bad input; the message says what was expected, what came and what to do."""


def closest(value: Any, allowed: Iterable[str]) -> str:
    """Return the allowed text that was probably meant, as the end of a message."""
    matches = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def check_count(name: str, count: int) -> None:
    """Raise UserError unless this is a whole number of at least 1."""
    if not (isinstance(count, int) and count >= 1):
        raise UserError(f"{name}: expected a whole number of at least 1, got {count!r}")


def beyond_every_image(norm: str | None, radius: float, image_shape: Sequence[int]) -> str:
    """Return what is wrong with a radius longer than from black to white, of 255 grey levels, say.

    Empty if nothing is, or for another norm than ``"linf"`` and ``"l2"``.
    """
    most = {"linf": 1.0, "l2": math.prod(image_shape) ** 0.5}.get(norm, math.inf)
    if radius <= most:
        return ""
    return (
        f"got {radius:g}, expected at most {most:.4g}, from black to white, in pixel units of [0, 1]; "
        f"where it is one of 255 grey levels, write {radius / 255:.4g}"
    )
