"""Files that are either whole or absent."""

from __future__ import annotations

import os
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
