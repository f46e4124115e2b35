"""Image data sets, one per file: fetch the official files, verify them, split them once, store them.

The path of one data set is :func:`fetch` -> :func:`prepare` -> :func:`save`, done once; every later
step reads the result with :mod:`input_hessian.experiment.data`.  To add a data set, write a file that
defines ``DATASET``, a :class:`Dataset`, here or anywhere else.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import signal
import sys
import tempfile
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pooch
import requests
import safetensors.torch
import torch
from torch import Tensor

from input_hessian.experiment.data import SPLITS, DatasetError, IntArray, permutation, sha256
from input_hessian.experiment.files import write_atomically

Part = tuple[Tensor, Tensor]  # images uint8 [N, C, H, W], labels int64 [N]

# Changing this seed changes every number of the experiment; the tests pin what it produces.
SPLIT_SEED = 20200906
ATTEMPTS = 3  # downloads of a file from one address
TIMEOUT = 20.0  # seconds without an answer after which one of them counts as failed
DEADLINE = 900.0  # seconds that all downloads of a file from one address may take
LARGEST = 2**30  # bytes of a file


@dataclass(frozen=True)
class Dataset:
    """What has to be known about a data set before any of its files is there.

    Attributes:
        name: The folder of the data set inside a mirror.
        class_names: Class names, in the order of the labels 0, 1, ...
        files: Official file names and the MD5 sums of the files as published (compressed).
        urls: Public mirrors, as prefixes: the file lies at `<url><file name>`.
        sizes: Number of images in each of `SPLITS`.
        decode: Reads the verified files: folder to {"train": (images, labels), ...}.
        image_shape: Channels, height and width in pixels.
        contents: MD5 sums of what is in the files, where they may come unpacked.
        folders: Further folders of a mirror in which the files may lie.
        parts: Which of `SPLITS` are cut, in this order, from which part that `decode` returns.
    """

    name: str
    class_names: tuple[str, ...]
    files: Mapping[str, str]
    urls: tuple[str, ...]
    sizes: Mapping[str, int]
    decode: Callable[[Path], dict[str, Part]]
    image_shape: tuple[int, int, int]
    contents: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"train": ("train", "validation"), "test": ("test",)}
    )


def fetch(dataset: Dataset, folder: Path, mirrors: Sequence[str] = ()) -> dict[str, str]:
    """Bring every official file into `folder`, verified; what is there and right is kept.

    A file appears under its name only when it is complete and its MD5 sum is right, and one that is
    wrong is replaced only then. The sum guards against damage and wrong files; it is the one that
    the publishers and torchvision list.

    Args:
        dataset: What to fetch.
        folder: Where the compressed files are kept; made if missing.
        mirrors: Tried before the public addresses, for each file: a URL that holds `<data set>/<file
            name>`, or a folder that holds this, the file itself, or a folder of torchvision. `~`, `$HOME`
            and `file://` are known, and so are unpacked files.

    Returns:
        The source that served each file, "cache" for files that were there.

    Raises:
        DatasetError: No source has the file; the message gives the reason for each source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_mirrors = [
        f"{mirror.rstrip('/')}/{dataset.name}/" if _is_url(mirror) else mirror for mirror in mirrors
    ]
    served = {}
    for filename, md5 in dataset.files.items():
        path, failures = folder / filename, []
        if path.exists():
            if not path.is_file():
                raise DatasetError(f"{path}: expected a file, got something else; move it away")
            if _is_right(dataset, path, filename):
                served[filename] = "cache"
                continue
            failures.append(f"{folder}: the file there has another md5 sum")
        for source in [*of_mirrors, *dataset.urls]:
            try:
                if _is_url(source):
                    place, content = source, _download(source, filename, md5, folder)
                else:
                    place, content = _read_folder(dataset, source, filename)
            except (OSError, ValueError, _GaveUp) as error:  # requests' errors are OSErrors
                failures.append(f"{source}: {error}")
                continue
            write_atomically(path, content)
            served[filename] = place
            break
        else:
            raise DatasetError(_how_to_provide(dataset, folder, filename, failures))
    return served


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def split_indices(dataset: Dataset) -> dict[str, IntArray]:
    """Fix which official images form each split, independently of every seed of the experiment.

    Returns:
        For each of `SPLITS` the sorted indices, int64 [N], into the part that it is cut from.
    """
    indices = {}
    for splits in dataset.parts.values():
        ends = np.cumsum([dataset.sizes[split] for split in splits])
        pieces = np.split(permutation(int(ends[-1]), SPLIT_SEED), ends[:-1])
        indices |= {split: np.sort(piece) for split, piece in zip(splits, pieces, strict=True)}
    return indices


def prepare(dataset: Dataset, folder: Path) -> dict[str, Tensor]:
    """Decode the files that `fetch` brought and cut them into splits.

    Returns:
        For each of `SPLITS`: `<split>_images` uint8 [N, C, H, W], `<split>_labels` int64 [N] and
        `<split>_index` int64 [N], the positions in the official file.

    Raises:
        DatasetError: A file is missing or damaged, or the contents are not what `dataset` says.
    """
    for filename in dataset.files:
        if not (folder / filename).is_file():
            raise DatasetError(f"no such file: {folder / filename}: fetch {dataset.name} first")
        if not _is_right(dataset, folder / filename, filename):
            raise DatasetError(f"md5 mismatch: {folder / filename}: fetch {dataset.name} again")
    decoded = dataset.decode(folder)
    indices = split_indices(dataset)
    tensors = {}
    for part, splits in dataset.parts.items():
        images, labels = decoded[part]
        count = sum(dataset.sizes[split] for split in splits)
        expected, got = (count, *dataset.image_shape), tuple(images.shape)
        if got != expected or len(labels) != count or images.dtype != torch.uint8:
            raise DatasetError(
                f"{dataset.name}, {part}: expected uint8 images of shape {expected} and {count} "
                f"labels, got {images.dtype} of shape {got} and {len(labels)}"
            )
        classes = len(dataset.class_names)
        if labels.dtype != torch.int64 or labels.min() < 0 or labels.max() >= classes:
            raise DatasetError(
                f"{dataset.name}, {part}: expected int64 labels from 0 to {classes - 1}, one per "
                f"class name, got {labels.dtype} from {labels.min()} to {labels.max()}"
            )
        for split in splits:
            index = torch.from_numpy(indices[split])
            tensors[f"{split}_images"] = images[index].contiguous()
            tensors[f"{split}_labels"] = labels[index]
            tensors[f"{split}_index"] = index
    return tensors


def describe(dataset: Dataset, tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Say what the tensors are: name, classes, sizes, seed, and SHA-256 of each split.

    Nothing here depends on the time or on where the files came from: equal data, equal description.
    """
    return {
        "dataset": dataset.name,
        "class_names": list(dataset.class_names),
        "sizes": {split: len(tensors[f"{split}_labels"]) for split in SPLITS},
        "split_seed": SPLIT_SEED,
        "sha256": checksums(tensors),
    }


def checksums(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the SHA-256 of each split, which :func:`input_hessian.experiment.data.load` verifies."""
    return {
        split: sha256(tensors[f"{split}_images"], tensors[f"{split}_labels"])
        for split in SPLITS
        if f"{split}_images" in tensors
    }


def save(tensors: Mapping[str, Tensor], path: Path, provenance: Mapping[str, object]) -> None:
    """Write the tensors and their provenance (`describe`) as one safetensors file, or nothing.

    Equal arguments give equal bytes: the provenance is one JSON string with sorted keys.
    """
    metadata = {"provenance": json.dumps(provenance, sort_keys=True)}
    write_atomically(path, safetensors.torch.save(dict(tensors), metadata))


def _read_folder(dataset: Dataset, mirror: str, filename: str) -> tuple[str, bytes]:
    """Return the folder that has one file, below a mirror, and its content, packed and verified."""
    if mirror.startswith("file:"):
        mirror = urllib.request.url2pathname(urllib.parse.urlsplit(mirror).path)
    place = Path(os.path.expandvars(mirror)).expanduser()
    folders = [place / name for name in (dataset.name, *dataset.folders, ".")]
    if not folders[-1].is_dir():
        raise DatasetError(f"no such folder: {folders[-1].resolve()}")
    names = dict.fromkeys([filename, filename.removesuffix(".gz")])
    there = [path for folder in folders for name in names if (path := folder / name).is_file()]
    if not there:
        raise DatasetError(f"no such file: {folders[0] / filename}")
    for path in there:
        if _is_right(dataset, path, filename):
            content = path.read_bytes()
            packed = content if path.name == filename else gzip.compress(content, 1, mtime=0)
            return f"{path.parent}/", packed
    got = pooch.file_hash(there[0], "md5")
    raise DatasetError(f"md5 mismatch: expected {dataset.files[filename]}, got {got}: {there[0]}")


def _is_right(dataset: Dataset, path: Path, filename: str) -> bool:
    """Whether a file is the official one, unpacked, or packed anew by another gzip."""
    content = dataset.contents.get(filename)
    expected = dataset.files[filename] if path.name == filename else content
    if pooch.file_hash(path, "md5") == expected:
        return True
    try:
        with gzip.open(path) as file:
            return hashlib.file_digest(file, "md5").hexdigest() == content
    except (OSError, EOFError, zlib.error):
        return False


class _GaveUp(Exception):
    """No reason to ask again, as pooch does after others."""


class _Limited(io.FileIO):
    def write(self, chunk: bytes) -> int:
        if self.tell() + len(chunk) > LARGEST:
            raise _GaveUp(f"longer than {LARGEST} bytes")
        return super().write(chunk)


class _Downloader(pooch.HTTPDownloader):
    def __call__(self, url: str, output_file: str, pooch: pooch.Pooch) -> None:
        try:
            with _Limited(output_file, "w") as file:
                super().__call__(url, file, pooch)
        except requests.HTTPError as error:
            if error.response.status_code < 500:
                raise _GaveUp(str(error)) from error
            raise


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Interrupt whatever is done after so long: requests limits only the wait for the next byte."""

    def overdue(*_: object) -> None:
        raise _GaveUp(f"not complete after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, overdue)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _download(prefix: str, filename: str, md5: str, folder: Path) -> bytes:
    """Return the content of one file from a URL, verified."""
    downloader = _Downloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=2**16,
        timeout=TIMEOUT,
        headers={
            "User-Agent": "input-hessian"
        },  # some mirrors turn away the usual names of programs
    )
    # In a folder of its own: pooch would give the file to this user alone, whatever the umask.
    with _deadline(DEADLINE), tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        files = pooch.create(
            scratch, prefix, registry={filename: f"md5:{md5}"}, retry_if_failed=ATTEMPTS - 1
        )
        return Path(files.fetch(filename, downloader=downloader)).read_bytes()


def _how_to_provide(dataset: Dataset, folder: Path, filename: str, failures: list[str]) -> str:
    tried = "\n".join(f"  {failure}" for failure in failures) or "  (no sources were given)"
    wanted = "\n".join(f"  {name}  (md5 {md5})" for name, md5 in dataset.files.items())
    return (
        f"cannot get {filename} of {dataset.name}. Tried:\n{tried}\n"
        f"To provide the files by hand, put them into {folder}/\n{wanted}\n"
        f"or set `mirror:` in config.yaml to a folder that holds {dataset.name}/<file name>, "
        "and run snakemake again."
    )
