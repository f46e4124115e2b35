"""Outputs that a job keeps, so that a repeated job computes again only what has changed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from input_hessian.experiment.checksums import record_checksum, verified
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically


def keep(folder: Path, fingerprint: str, paths: Sequence[Path], make: Callable[[], None]) -> None:
    """Have ``make()`` write the files ``paths``, unless the folder keeps those of this fingerprint.

    Snakemake deletes the outputs of a job before it repeats it; a second name for each file, where
    the file system has hard links and else a copy, survives that.

    Args:
        folder: where the files are kept.
        fingerprint: of all that they depend on.
        paths: files with different names.
        make: writes all of them.
    """
    copies = [folder / path.name for path in paths]
    written_by = folder / "fingerprint"
    if written_by.exists() and written_by.read_text() == fingerprint:
        with contextlib.suppress(UserError):  # one is missing or damaged
            for path, copy in zip(paths, copies, strict=True):
                _link(verified(copy), path)
            print(f"{folder}: nothing has changed", flush=True)
            return
    make()
    written_by.unlink(missing_ok=True)
    for path, copy in zip(paths, copies, strict=True):
        _link(path, copy)
        record_checksum(copy)
    write_atomically(written_by, fingerprint)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
