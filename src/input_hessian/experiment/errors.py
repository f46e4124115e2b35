"""Errors that a user can mend."""

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """Bad input; the message says what was expected, what came and what to do."""


def closest(value: Any, allowed: Iterable[str]) -> str:
    """Return the allowed text that was probably meant, as the end of a message."""
    matches = difflib.get_close_matches(str(value), list(allowed), n=1)
    return f" (did you mean {matches[0]}?)" if matches else ""
