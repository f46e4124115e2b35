"""Image data: fetch the official files, verify them, split them once, store them as tensors.

The path of one data set is `fetch` -> `prepare` -> `save`, done once, and `load` in every later
step. To add a data set, write a function that decodes its files and one entry of `DATASETS`.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import itertools
import json
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically

IntArray = NDArray[np.int64]
Part = tuple[Tensor, Tensor]  # images uint8 [N, H, W], labels int64 [N]

SPLITS = ("train", "validation", "test")
# Changing either seed changes every number of the experiment; the tests pin what they produce.
SPLIT_SEED = 20200906
EVALUATION_SEED = 6571


class DatasetError(UserError):
    """The data cannot be had or read; the message says what was tried and what to do."""


# All that a source can do wrong.
_FAILURES = (OSError, http.client.HTTPException, DatasetError)


@dataclass(frozen=True)
class Dataset:
    """What has to be known about a data set before any of its files is there.

    Attributes:
        name: Key in `DATASETS`, and the folder of the data set inside a mirror.
        class_names: Class names, in the order of the labels 0, 1, ...
        files: Official file names and the MD5 sums of the files as published (compressed).
        urls: Public mirrors, as prefixes: the file lies at `<url><file name>`.
        sizes: Number of images in each of `SPLITS`.
        decode: Reads the verified files: (data set, folder) to {"train": (images, labels), ...}.
        image_shape: Channels, height and width in pixels.
        parts: Which of `SPLITS` are cut, in this order, from which part that `decode` returns.
    """

    name: str
    class_names: tuple[str, ...]
    files: Mapping[str, str]
    urls: tuple[str, ...]
    sizes: Mapping[str, int]
    decode: Callable[[Dataset, Path], dict[str, Part]]
    image_shape: tuple[int, int, int] = (1, 28, 28)
    parts: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"train": ("train", "validation"), "test": ("test",)}
    )


class Split(NamedTuple):
    """One split in memory: images float32 [N, C, H, W] in [0, 1], labels and index int64 [N]."""

    images: Tensor
    labels: Tensor
    index: Tensor  # position in the official file that the image comes from


def _decode_idx(dataset: Dataset, folder: Path) -> dict[str, Part]:
    """Read gzipped IDX files (the MNIST format) with torchvision's reader."""
    # Imported here: torchvision takes seconds to load and only this function needs it.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    parts = {}
    with tempfile.TemporaryDirectory() as scratch:  # the reader takes unpacked files only
        unpacked = Path(scratch) / "idx"

        def read(filename: str, reader: Callable[[str], Tensor]) -> Tensor:
            unpacked.write_bytes(gzip.decompress(_read_verified(dataset, folder, filename)))
            return reader(str(unpacked))

        for part, prefix in (("train", "train"), ("test", "t10k")):
            images = read(f"{prefix}-images-idx3-ubyte.gz", read_image_file)
            parts[part] = images, read(f"{prefix}-labels-idx1-ubyte.gz", read_label_file)
    return parts


def _decode_digits(dataset: Dataset, folder: Path) -> dict[str, Part]:
    """Take scikit-learn's bundled digits; `folder` is not used.

    The 17 grey levels k = 0..16 become round(255 k / 16), so that images of all data sets are bytes
    with full range; the rounding moves a pixel by at most 1/510 on the scale [0, 1].
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return {"train": (torch.from_numpy(images), torch.from_numpy(digits.target.astype(np.int64)))}


_DIGIT_NAMES = tuple("0123456789")
_MNIST_SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mnist",
            class_names=_DIGIT_NAMES,
            files={
                "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
                "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
                "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            },
            urls=(
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
                "http://yann.lecun.com/exdb/mnist/",
            ),
            sizes=_MNIST_SIZES,
            decode=_decode_idx,
        ),
        Dataset(
            name="fashion_mnist",
            class_names=(
                *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
                *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
            ),
            files={
                "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            },
            urls=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ),
            sizes=_MNIST_SIZES,
            decode=_decode_idx,
        ),
        Dataset(
            name="digits",
            class_names=_DIGIT_NAMES,
            files={},
            urls=(),
            sizes={"train": 1_197, "validation": 200, "test": 400},
            decode=_decode_digits,
            image_shape=(1, 8, 8),
            parts={"train": SPLITS},  # no official test set
        ),
    )
}


def sources_for(dataset: Dataset, mirrors: Sequence[str] = ()) -> list[str]:
    """List the sources of a data set: the user's mirrors first, then the public URLs.

    A mirror, be it a folder or a URL, holds several data sets as `<mirror>/<data set>/<file>`.
    """
    urls = [f"{m.rstrip('/')}/{dataset.name}/" if _is_url(m) else m for m in mirrors]
    return [*urls, *dataset.urls]


def fetch(
    dataset: Dataset,
    folder: Path,
    *,
    sources: Sequence[str | Path],
    attempts: int = 3,
    timeout: float = 20.0,
    backoff: float = 1.0,
) -> dict[str, str]:
    """Bring every official file into `folder`, verified; what is there and right is kept.

    A file appears under its name only when it is complete and its MD5 sum is right. The sum guards
    against damage and wrong files; it is the one that the publishers and torchvision list.

    Args:
        dataset: An entry of `DATASETS`.
        folder: Where the compressed files are kept; made if missing.
        sources: Tried in this order for each file: a folder that holds `<data set>/<file name>`,
            or a URL prefix (`<url><file name>`).
        attempts: Tries for each URL; folders get one.
        timeout: Seconds without an answer after which a try counts as failed.
        backoff: Seconds to wait before the second try, doubled before each further one.

    Returns:
        The source that served each file, "cache" for files that were there.

    Raises:
        DatasetError: No source has the file; the message gives the reason for each source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    served = {}
    for filename in dataset.files:
        failures = []
        try:
            _read_verified(dataset, folder, filename)
            served[filename] = "cache"
            continue
        except FileNotFoundError:
            pass
        except DatasetError as error:
            failures.append(f"{folder}: {error}")
            (folder / filename).unlink(missing_ok=True)
        for source in map(str, sources):
            try:
                content = _read_source(source, dataset, filename, attempts, timeout, backoff)
            except _FAILURES as error:
                failures.append(f"{source}: {_reason(error)}")
                continue
            write_atomically(folder / filename, content)
            served[filename] = source
            break
        else:
            raise DatasetError(_how_to_provide(dataset, folder, filename, failures))
    return served


def split_indices(dataset: Dataset) -> dict[str, IntArray]:
    """Fix which official images form each split, independently of every seed of the experiment.

    Returns:
        For each of `SPLITS` the sorted indices, int64 [N], into the part that it is cut from.
    """
    indices = {}
    for splits in dataset.parts.values():
        ends = np.cumsum([dataset.sizes[split] for split in splits])
        pieces = np.split(_permutation(int(ends[-1]), SPLIT_SEED), ends[:-1])
        indices |= {split: np.sort(piece) for split, piece in zip(splits, pieces, strict=True)}
    return indices


def evaluation_subset(n: int, total: int, seed: int = EVALUATION_SEED) -> IntArray:
    """Choose the fixed random `n` of `total` test images on which the attacks run.

    Never the first n: in MNIST's test file the first half is easier than the second, as its
    authors say. The subset of a smaller n lies within that of a larger n (same total and seed).

    Returns:
        Sorted indices, int64 [n].

    Raises:
        DatasetError: n is not between 1 and total.
    """
    if not 1 <= n <= total:
        raise DatasetError(f"expected between 1 and {total} evaluation images, got {n}")
    return np.sort(_permutation(total, seed)[:n])


def prepare(dataset: Dataset, raw_folder: Path) -> dict[str, Tensor]:
    """Decode the files that `fetch` brought and cut them into splits.

    Returns:
        For each of `SPLITS`: `<split>_images` uint8 [N, C, H, W], `<split>_labels` int64 [N] and
        `<split>_index` int64 [N], the positions in the official file.

    Raises:
        DatasetError: A file is missing or damaged, or the contents are not what the registry says.
    """
    try:
        decoded = dataset.decode(dataset, raw_folder)
    except FileNotFoundError as error:
        raise DatasetError(f"{_reason(error)}: fetch {dataset.name} first") from error
    indices = split_indices(dataset)
    tensors = {}
    for part, splits in dataset.parts.items():
        images, labels = decoded[part]
        count = sum(dataset.sizes[split] for split in splits)
        expected, got = (count, *dataset.image_shape[1:]), tuple(images.shape)
        if got != expected or len(labels) != count:
            raise DatasetError(
                f"{dataset.name}, {part}: expected images of shape {expected} and {count} labels, "
                f"got {got} and {len(labels)}"
            )
        for split in splits:
            index = torch.from_numpy(indices[split])
            tensors[f"{split}_images"] = images[index].reshape(-1, *dataset.image_shape)
            tensors[f"{split}_labels"] = labels[index]
            tensors[f"{split}_index"] = index
    return tensors


def describe(dataset: Dataset, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Say what the tensors are: name, sizes, seed, and SHA-256 of each split's images and labels.

    Nothing here depends on the time or on where the files came from: equal data, equal description.
    """
    sha256 = {}
    for split in SPLITS:
        digest = hashlib.sha256(tensors[f"{split}_images"].numpy())
        digest.update(tensors[f"{split}_labels"].numpy())
        sha256[split] = digest.hexdigest()
    sizes = {split: len(tensors[f"{split}_labels"]) for split in SPLITS}
    return {"dataset": dataset.name, "sizes": sizes, "split_seed": SPLIT_SEED, "sha256": sha256}


def save(tensors: Mapping[str, Tensor], path: Path, provenance: Mapping[str, object]) -> None:
    """Write the tensors and their provenance (`describe`) as one safetensors file, or nothing.

    Equal arguments give equal bytes: the provenance is one JSON string with sorted keys.
    """
    metadata = {"provenance": json.dumps(provenance, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(dict(tensors), metadata))


def load(path: Path, split: str) -> Split:
    """Read one split of a file that `save` wrote, with images scaled to [0, 1] (uint8 / 255).

    Raises:
        DatasetError: The file is missing, truncated or not ours, or the split is unknown.
    """
    if split not in SPLITS:
        raise DatasetError(f"expected one of the splits {', '.join(SPLITS)}, got {split!r}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            parts = [file.get_tensor(f"{split}_{field}") for field in ("images", "labels", "index")]
    except FileNotFoundError as error:
        raise DatasetError(f"{path} does not exist: run snakemake to make it") from error
    except (OSError, safetensors.SafetensorError) as error:
        remedy = "delete the file and run snakemake again"
        raise DatasetError(f"{path} cannot be read ({error}): {remedy}") from error
    images, labels, index = parts
    return Split(images.float().div_(255), labels, index)


def _permutation(n: int, seed: int) -> IntArray:
    """Permute 0..n-1; NumPy promises the raw stream of PCG64 for good, but not `permutation`."""
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _verified(content: bytes, expected: str) -> bytes:
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != expected:
        raise DatasetError(f"md5 mismatch: expected {expected}, got {got}")
    return content


def _read_verified(dataset: Dataset, folder: Path, filename: str) -> bytes:
    """Read a file whole, so that the bytes that are decoded are the bytes that were verified."""
    return _verified((folder / filename).read_bytes(), dataset.files[filename])


def _read_source(
    source: str, dataset: Dataset, filename: str, attempts: int, timeout: float, backoff: float
) -> bytes:
    """Read and verify one file from one source; raises the reason of the last try."""
    if not _is_url(source):
        if not Path(source).is_dir():
            raise DatasetError(f"no such folder: {Path(source).resolve()}")
        return _read_verified(dataset, Path(source) / dataset.name, filename)
    # Some mirrors turn away urllib's own name.
    request = urllib.request.Request(source + filename, headers={"User-Agent": "input-hessian"})
    for attempt in itertools.count(1):
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                # Whole, not in pieces: only then does http.client notice a connection that ends
                # before Content-Length. The largest file has 26 MB.
                return _verified(response.read(), dataset.files[filename])
        except _FAILURES as error:
            refused = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404)
            if refused or attempt >= attempts:
                raise
        time.sleep(backoff * 2 ** (attempt - 1))


def _reason(error: Exception) -> str:
    match error:
        case urllib.error.HTTPError():
            return f"HTTP {error.code} {error.reason}"
        case urllib.error.URLError():
            return str(error.reason)
        case http.client.IncompleteRead():
            received = len(error.partial)
            return f"connection closed after {received} of {received + error.expected} bytes"
        case FileNotFoundError():
            return f"no such file: {error.filename}"
    return str(error) or type(error).__name__


def _how_to_provide(dataset: Dataset, folder: Path, filename: str, failures: list[str]) -> str:
    tried = "\n".join(f"  {failure}" for failure in failures) or "  (no sources were given)"
    wanted = "\n".join(f"  {name}  (md5 {md5})" for name, md5 in dataset.files.items())
    return (
        f"cannot get {filename} of {dataset.name}. Tried:\n{tried}\n"
        f"To provide the files by hand, put them into {folder}/\n{wanted}\n"
        f"or set `mirror:` in config.yaml to a folder that holds {dataset.name}/<file name>, "
        "and run snakemake again."
    )
