"""A data set of the user's own: 310 colour pictures in the files of CIFAR-10's binary version.

The files are made here, and :func:`write_mirror` puts them where a mirror has them.
"""

import dataclasses
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

from input_hessian.experiment.datasets import cifar10

ARCHIVE = cifar10.ARCHIVE
CLASSES = 10
SIZES = {"train": 200, "validation": 50, "test": 60}


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
    """Return the archive, the same bytes each time; as in the official one, not only batches."""
    contents = {"readme.html": b"", "batches.meta.txt": b"airplane\n"}
    for name, (images, labels) in reversed(batches().items()):
        contents[name] = np.hstack([labels[:, None], images.reshape(len(images), -1)]).tobytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


def write_mirror(folder: Path) -> None:
    """Write the archive to where it lies in a mirror: ``<folder>/<data set>/<file name>``."""
    path = folder / DATASET.name / ARCHIVE
    path.parent.mkdir(parents=True)
    path.write_bytes(archive())


DATASET = dataclasses.replace(
    cifar10.DATASET,
    name="tiny_cifar10",
    files={ARCHIVE: hashlib.md5(archive(), usedforsecurity=False).hexdigest()},
    urls=(),
    sizes=SIZES,
)
