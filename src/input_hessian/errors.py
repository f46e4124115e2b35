"""Errors that a user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input; the message says what was expected, what came and what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a script; a :class:`UserError` ends it with its message and status 1, no traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None
