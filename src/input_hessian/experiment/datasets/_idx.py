"""Gzipped IDX files, the format of MNIST."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from input_hessian.experiment.datasets import Part

SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}


def decode_idx(folder: Path) -> dict[str, Part]:
    """Read the four files of MNIST, or of a data set in its format."""
    return {
        part: (
            _read(folder / f"{prefix}-images-idx3-ubyte.gz")[:, None],
            _read(folder / f"{prefix}-labels-idx1-ubyte.gz").long(),
        )
        for part, prefix in (("train", "train"), ("test", "t10k"))
    }


def _read(path: Path) -> Tensor:
    """Return the bytes of an IDX file: its rank is byte 3, then come big-endian sizes, then the data."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
    return torch.from_numpy(values.reshape(shape).copy())
