"""The command line of a script: the signature of its function, and nothing else.

    def main(data: Input, *, settings: Settings, seed: int, model: Output, threads: int) -> None: ...

    if __name__ == "__main__":
        run(main)

becomes ``python script.py --data FILE --seed N --model FILE --threads N < settings.yaml``.  The
annotations also tell the workflow what each parameter is (``command`` in ``workflow/rules``): an
input or output of the rule, the number of threads, or, for all others, one of its params.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cyclopts
import yaml

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.sources import edited, watch

# What an OSError says of a folder that is full, read-only or not the user's.
NO_PLACE = {errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.EPERM, errno.EROFS}
Input = Path  # a file that must be there
Output = Path  # a file to write
Untracked = str  # a resource of the rule: what changes no result
# What is too long for a command line: YAML from standard input.
Settings = Annotated[dict, cyclopts.Parameter(parse=False)]


def run(main: Callable[..., None]) -> None:
    """Call a script's function with the arguments of the command line.

    A :class:`UserError` ends it with its message and status 1, without a traceback, and so does a
    place that cannot be written to, or code that is edited meanwhile: Snakemake would take the result
    for one of the new code.
    """
    watch(inspect.getfile(main))
    app = cyclopts.App(
        help=inspect.getmodule(main).__doc__,
        version_flags=(),
        result_action="return_value",
        default_parameter=cyclopts.Parameter(consume_multiple=True, negative=()),
    )
    app.default(main)
    call, arguments, unparsed = app.parse_args(sys.argv[1:])
    try:
        settings = {name: yaml.safe_load(sys.stdin) for name in unparsed}
        call(*arguments.args, **arguments.kwargs, **settings)
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
