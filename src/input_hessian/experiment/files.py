"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from input_hessian.experiment.errors import UserError


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Write ``content`` to a temporary neighbour of ``path`` and rename it: never half a file.

    Raises:
        UserError: if ``path`` is there and not a regular file: renaming would replace a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: expected a file to write, got something else; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
        with contextlib.suppress(FileNotFoundError):
            for path, copy in zip(paths, copies, strict=True):
                _link(copy, path)
            print(f"{folder}: nothing has changed", flush=True)
            return
    make()
    written_by.unlink(missing_ok=True)
    for path, copy in zip(paths, copies, strict=True):
        _link(path, copy)
    write_atomically(written_by, fingerprint)


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where that cannot be."""
    if not source.is_file():
        raise FileNotFoundError(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
