"""The command line of a script: the signature of its function, and nothing else.

    def main(data: Input, *, settings: Settings, seed: int, model: Output, threads: int) -> None: ...

    if __name__ == "__main__":
        run(main)

becomes ``python script.py --data FILE --seed N --model FILE --threads N < settings.yaml``.  The
annotations also tell the workflow what each parameter is (``command`` in ``workflow/rules``): an
input or output of the rule, the number of threads, or, for all others, one of its params.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cyclopts
import yaml

from input_hessian.experiment.errors import UserError

Input = Path  # a file that must be there
Output = Path  # a file to write
Untracked = str  # a resource of the rule: what changes no result
# What is too long for a command line: YAML from standard input.
Settings = Annotated[dict, cyclopts.Parameter(parse=False)]


def run(main: Callable[..., None]) -> None:
    """Call a script's function with the arguments of the command line.

    A :class:`UserError` ends it with its message and status 1, without a traceback.
    """
    try:
        call(main, sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        raise SystemExit(130) from None


def call(main: Callable[..., None], words: list[str], settings: dict | None = None) -> None:
    """Call a script's function with these words of a command line.

    Args:
        main: the function.
        words: ``["--model", "FILE", ...]``.
        settings: its :data:`Settings`, if any; by default they are read from standard input.
    """
    app = cyclopts.App(
        help=inspect.getmodule(main).__doc__,
        version_flags=(),
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative=()),
    )
    app.default(main)
    function, arguments, unparsed = app.parse_args(words)
    given = {name: yaml.safe_load(sys.stdin) if settings is None else settings for name in unparsed}
    function(*arguments.args, **arguments.kwargs, **given)
