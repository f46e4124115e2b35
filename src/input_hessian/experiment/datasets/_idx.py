"""Gzipped IDX files, the format of MNIST."""

import gzip
import tempfile
from pathlib import Path

from input_hessian.experiment.datasets import Part

SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}


def decode_idx(folder: Path) -> dict[str, Part]:
    """Read the four files of MNIST, or of a data set in its format, with torchvision's reader."""
    from torchvision.datasets.mnist import read_image_file, read_label_file

    parts = {}
    with tempfile.TemporaryDirectory() as scratch:  # the reader takes unpacked files only
        unpacked = Path(scratch) / "idx"

        def read(filename, reader):
            unpacked.write_bytes(gzip.decompress((folder / filename).read_bytes()))
            return reader(str(unpacked))

        for part, prefix in (("train", "train"), ("test", "t10k")):
            images = read(f"{prefix}-images-idx3-ubyte.gz", read_image_file)
            labels = read(f"{prefix}-labels-idx1-ubyte.gz", read_label_file)
            parts[part] = images[:, None], labels
    return parts
