"""Pack what tables and figures read of a run's results, without the networks.

Unpacked over ``results``, the archive lets tables, figures and notebook be made again without training
or attacking anything, and a run that was broken off elsewhere go on::

    uv run snakemake archive                                    # of a finished run
    python -m zipfile -e reports/paper/cells.zip .
"""

import io
import zipfile
from pathlib import Path

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically

# Networks, what only a job that is repeated needs, and examples that no figure shows.
LEFT_OUT = {"model.safetensors", "checkpoint.pt", "examples.safetensors"}
LEFT_OUT_FOLDERS = {"kept", "attacks"}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip file


def packed(grid: dict, examples: list[Path]) -> list[Path]:
    """Return the files of an archive, sorted, each with its checksum.

    Args:
        grid: the cells, and the folder that holds them; it may hold those of other grids, too.
        examples: files of adversarial examples to pack.
    """
    results, kept = Path(grid["results"]), {path.absolute() for path in examples}
    folders = set(cell_folders(grid))

    def belongs(path: Path) -> bool:
        parts = path.relative_to(results).parts
        of_cell = parts[0] in grid["datasets"]
        if of_cell and folders.isdisjoint(path.parents):
            return False
        of = path.with_name(path.name.removeprefix(".").removesuffix(".sha256"))
        needed = of.name not in LEFT_OUT or of.absolute() in kept
        return needed and LEFT_OUT_FOLDERS.isdisjoint(parts)

    return sorted(path for path in results.rglob("*") if path.is_file() and belongs(path))


def write_zip(archive: Path, contents: dict[str, bytes]) -> None:
    """Write an archive of files by their names: equal contents, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as pack:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            pack.writestr(entry, contents[name])
    write_atomically(archive, buffer.getvalue())
    print(f"{archive}: {len(contents)} files, {buffer.tell() / 1e6:.1f} MB")


def main(examples: list[Input], *, settings: Settings, archive: Output) -> None:
    files = packed(settings["grid"], examples)
    if not files:
        raise UserError(
            f"{settings['grid']['results']}: expected the results of a run, found none; run "
            "snakemake first"
        )
    write_zip(archive, {path.as_posix(): path.read_bytes() for path in files})


if __name__ == "__main__":
    run(main)
