"""A data set of the user's own: 310 colour pictures in the files of CIFAR-10's binary version.

The files are made here, and :func:`write_mirror` puts them where a mirror has them.  The rest is
what a user writes to add CIFAR-10 itself, but for the sizes, the sum and the address.
"""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import torch

from input_hessian.experiment.datasets import Dataset, Part

ARCHIVE = "cifar-10-binary.tar.gz"
CLASSES = 10
SIZES = {"train": 200, "validation": 50, "test": 60}


def decode(folder: Path) -> dict[str, Part]:
    """Read the records of the archive: a label, then 1,024 bytes each of red, green and blue."""
    records = {"train": b"", "test": b""}
    with tarfile.open(folder / ARCHIVE) as archive:
        for name in sorted(archive.getnames()):
            if name.endswith(".bin"):
                part = "test" if name.endswith("test_batch.bin") else "train"
                records[part] += archive.extractfile(name).read()
    parts = {}
    for part, content in records.items():
        rows = torch.from_numpy(np.frombuffer(content, np.uint8).reshape(-1, 3073).copy())
        parts[part] = rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].long()
    return parts


def pictures(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy pictures of equally bright squares, whose colours are those of their class.

    Returns:
        Images uint8 ``[size, 3, 32, 32]`` and labels uint8 ``[size]``.
    """
    noise = np.random.default_rng(seed)
    # What tells the classes apart is the colours alone: the mean over the channels is the same.
    colours = np.random.default_rng(0).uniform(-75, 75, (CLASSES, 3, 4, 4))
    colours -= colours.mean(1, keepdims=True)
    labels = (np.arange(size) % CLASSES).astype(np.uint8)
    images = 128 + colours[labels].repeat(8, axis=2).repeat(8, axis=3)
    images += noise.uniform(-25, 25, images.shape)
    return images.clip(0, 255).astype(np.uint8), labels


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the images and labels of each file in the archive."""
    return {
        "data_batch_1.bin": pictures(150, seed=1),
        "data_batch_2.bin": pictures(100, seed=2),
        "test_batch.bin": pictures(60, seed=3),
    }


def archive() -> bytes:
    """Return the archive, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, (images, labels) in batches().items():
            content = np.hstack([labels[:, None], images.reshape(len(images), -1)]).tobytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def write_mirror(folder: Path) -> None:
    """Write the archive to where it lies in a mirror: ``<folder>/<data set>/<file name>``."""
    path = folder / DATASET.name / ARCHIVE
    path.parent.mkdir(parents=True)
    path.write_bytes(archive())


DATASET = Dataset(
    name="tiny_cifar10",
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    files={ARCHIVE: hashlib.md5(archive(), usedforsecurity=False).hexdigest()},
    urls=(),
    sizes=SIZES,
    decode=decode,
    image_shape=(3, 32, 32),
)
