"""Colour photographs of ten kinds of things, 32 x 32 (Krizhevsky 2009): the binary version."""

import tarfile
from pathlib import Path

import numpy as np
import torch

from input_hessian.experiment.datasets import Dataset, Part

ARCHIVE = "cifar-10-binary.tar.gz"


def decode(folder: Path) -> dict[str, Part]:
    """Read the records of the archive: a label, then 1,024 bytes each of red, green and blue.

    The training images are those of ``data_batch_1.bin`` to ``data_batch_5.bin``, in this order.
    """
    with tarfile.open(folder / ARCHIVE) as archive:
        batches = {
            member.name: archive.extractfile(member).read()
            for member in archive
            if member.name.endswith(".bin")
        }

    def part(prefix: str) -> Part:
        content = b"".join(batches[name] for name in sorted(batches) if f"/{prefix}_" in name)
        records = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, 3073).copy())
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()

    return {"train": part("data"), "test": part("test")}


DATASET = Dataset(
    name="cifar10",
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    files={ARCHIVE: "c32a1d4ab5d03f1284b67883e8d87530"},
    urls=("https://www.cs.toronto.edu/~kriz/",),  # cifar.html there lists the sum
    sizes={"train": 45_000, "validation": 5_000, "test": 10_000},
    decode=decode,
    image_shape=(3, 32, 32),
)
