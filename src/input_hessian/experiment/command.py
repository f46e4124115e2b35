"""The command line of a script: the signature of its function, and nothing else.

    def main(data: Input, *, settings: Settings, seed: int, model: Output, threads: int) -> None: ...

    if __name__ == "__main__":
        run(main)

becomes ``python script.py --data FILE --seed N --model FILE --threads N < settings.yaml``.  The
annotations also tell the workflow what each parameter is (``command`` in ``workflow/rules``): an
input or output of the rule, the number of threads, or, for all others, one of its params.  Inputs
are verified against their checksums, and outputs get one (:mod:`checksums`).
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

import cyclopts
import yaml

from input_hessian.experiment.checksums import checksum_file, record_checksum, verified
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.sources import edited, unwatch, watch

# What an OSError says of a folder that is full, read-only or not the user's.
NO_PLACE = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}
Input = Annotated[Path, "input"]  # a file that must be there
Output = Annotated[Path, "output"]  # a file to write
Untracked = str  # a resource of the rule: what changes no result
# What is too long for a command line: YAML from standard input.
Settings = Annotated[dict, cyclopts.Parameter(parse=False)]


def run(main: Callable[..., None]) -> None:
    """Call a script's function with the arguments of the command line.

    A :class:`UserError` ends it with its message and status 1, without a traceback, and so does a
    place that cannot be written to, or code that is edited meanwhile: Snakemake would take the result
    for one of the new code.
    """
    unwatch()
    try:
        call(main, sys.argv[1:])
        if files := edited():
            names = ", ".join(os.path.relpath(file) for file in files)
            raise UserError(f"{names} changed while this ran; run snakemake again")
    except OSError as error:
        if error.errno not in NO_PLACE and "temporary directory" not in str(error):
            raise
        print(
            f"error: {error}; make room there or permit it (TMPDIR names the folder of temporary "
            "files), and run snakemake again",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
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
    watch(inspect.getfile(main))
    app = cyclopts.App(
        help=inspect.getmodule(main).__doc__,
        version_flags=(),
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative=()),
    )
    app.default(main)
    function, arguments, unparsed = app.parse_args(words)
    inputs, outputs = (list(_files(main, arguments.arguments, kind)) for kind in (Input, Output))
    for path in inputs:
        verified(path)
    for path in outputs:
        checksum_file(path).unlink(missing_ok=True)
    given = {name: _settings() if settings is None else settings for name in unparsed}
    function(*arguments.args, **arguments.kwargs, **given)
    for path in outputs:
        record_checksum(path)


def _settings() -> dict:
    """Return the settings from standard input.

    Raises:
        UserError: if there are none: somebody called a script by hand.
    """
    try:
        settings = yaml.safe_load(sys.stdin)
    except yaml.YAMLError as error:
        raise UserError(f"settings: expected YAML on standard input, got {error}") from None
    if not isinstance(settings, dict):
        raise UserError(
            "settings: expected a mapping in YAML on standard input, got "
            f"{type(settings).__name__}; `snakemake -p` shows the whole command of a job"
        )
    return settings


def _files(main: Callable[..., None], arguments: dict, kind: object) -> Iterator[Path]:
    """Yield the arguments whose annotation is ``kind``, a list of it, or it and ``None``."""
    for name, annotation in get_type_hints(main, include_extras=True).items():
        if kind in (annotation, *get_args(annotation)):
            value = arguments.get(name) or []
            yield from value if isinstance(value, list) else [value]
