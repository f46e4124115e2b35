"""Prepared image data, as every job reads them: whole splits, and the fixed subsets that are attacked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
from numpy.typing import NDArray
from torch import Tensor, from_numpy

from input_hessian.experiment.errors import UserError

IntArray = NDArray[np.int64]

SPLITS = ("train", "validation", "test")
# Changing this seed changes every number of the experiment; the tests pin what it produces.
EVALUATION_SEED = 6571


class DatasetError(UserError):
    """The data cannot be had or read; the message says what was tried and what to do."""


class Split(NamedTuple):
    """Images in memory: float32 ``[N, C, H, W]`` in [0, 1], labels and index int64 ``[N]``."""

    images: Tensor
    labels: Tensor
    index: Tensor  # position in the official file that the image comes from


def load(path: Path, split: str) -> Split:
    """Read one split of a prepared file, with images scaled to [0, 1] (uint8 / 255).

    Raises:
        DatasetError: The file is missing, truncated or not ours, or the split is unknown.
    """
    if split not in SPLITS:
        raise DatasetError(f"expected one of the splits {', '.join(SPLITS)}, got {split!r}")
    with _opened(path) as file:
        images, labels, index = (
            file.get_tensor(f"{split}_{field}") for field in ("images", "labels", "index")
        )
        expected = json.loads(file.metadata()["provenance"])["sha256"][split]
    if sha256(images, labels) != expected:
        raise DatasetError(
            f"{path}: the {split} images or labels are not those that were written (SHA-256 "
            f"{expected[:12]}...): the file is damaged; delete it and run snakemake again"
        )
    return Split(images.float().div_(255), labels, index)


def sha256(images: Tensor, labels: Tensor) -> str:
    """Return the checksum of one split: of the bytes of its images, then of its labels."""
    digest = hashlib.sha256(images.numpy())
    digest.update(labels.numpy())
    return digest.hexdigest()


def class_names(path: Path) -> list[str]:
    """Return the names of the classes of a prepared file, in the order of the labels.

    Raises:
        DatasetError: as :func:`load`.
    """
    with _opened(path) as file:
        return json.loads(file.metadata()["provenance"])["class_names"]


def evaluation_subset(n: int, total: int, seed: int = EVALUATION_SEED) -> IntArray:
    """Choose the fixed random ``n`` of ``total`` images on which the attacks run.

    Never the first n: in MNIST's test file the first half is easier than the second, as its
    authors say. The subset of a smaller n lies within that of a larger n (same total and seed).

    Returns:
        Sorted indices, int64 ``[n]``.

    Raises:
        DatasetError: n is not between 1 and total.
    """
    if not 1 <= n <= total:
        raise DatasetError(f"expected between 1 and {total} evaluation images, got {n}")
    return np.sort(permutation(total, seed)[:n])


def evaluation_images(path: Path, n: int, split: str = "test") -> Split:
    """Return the :func:`evaluation_subset` of ``n`` images of one split.

    Raises:
        DatasetError: as :func:`load` and :func:`evaluation_subset`.
    """
    whole = load(path, split)
    chosen = from_numpy(evaluation_subset(n, len(whole.labels)))
    return Split(*(field[chosen] for field in whole))


def permutation(n: int, seed: int) -> IntArray:
    """Permute 0..n-1; NumPy promises the raw stream of PCG64 for good, but not `permutation`."""
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[safetensors.safe_open]:
    """Open a prepared file; whatever is wrong with it becomes one clear error."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist: run snakemake to make it") from error
    except (OSError, safetensors.SafetensorError, KeyError, TypeError) as error:
        remedy = "delete the file and run snakemake again"
        raise DatasetError(f"{path} cannot be read ({error}): {remedy}") from error
