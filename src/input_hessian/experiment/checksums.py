"""Checksums beside the files of a run, so that a file that was damaged later is not believed.

Every script writes the SHA-256 of each of its outputs into a hidden neighbour, in the format of
``sha256sum``, and verifies what it reads; a disk's flipped bit, half a copy and an edit by hand all
end the run with one sentence.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically


def checksum_file(path: Path) -> Path:
    """Return where the checksum of a file is kept."""
    return path.with_name(f".{path.name}.sha256")


def record_checksum(path: Path) -> None:
    """Write the checksum of a file that is finished."""
    write_atomically(checksum_file(path), f"{_sha256(path)}  {path.name}\n")


def verified(path: Path) -> Path:
    """Return ``path`` if the file there is what was written; files without a checksum pass.

    Raises:
        UserError: if the file is missing, or its content is another than when it was written.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a file, found none; run snakemake to make it")
    if checksum_file(path).exists():
        expected, got = checksum_file(path).read_text().split()[0], _sha256(path)
        if got != expected:
            raise UserError(
                f"{path}: expected the content that was written, of SHA-256 {expected[:12]}..., got "
                f"{got[:12]}...: the file was damaged or edited since; delete it and run snakemake "
                "again, which makes it anew"
            )
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
