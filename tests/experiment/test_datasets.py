"""Data sets: real HTTP servers on loopback, and the real files from a mirror beside the repository.

Most tests use `toy`, a data set of 12 + 4 images with its own MD5 sums, published by servers that
misbehave on purpose.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import json
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from helpers import tiny_cifar10
from helpers.repository import ROOT
from helpers.servers import files_of, serving

from input_hessian.experiment import data, datasets
from input_hessian.experiment.data import SPLITS, DatasetError
from input_hessian.experiment.datasets import Dataset, fetch
from input_hessian.experiment.plugins import load_plugin

DATASETS = {
    name: load_plugin("dataset", name).DATASET
    for name in ("mnist", "fashion_mnist", "cifar10", "digits")
}

MIRROR = ROOT.parent / "shared/datasets"
needs_mirror = pytest.mark.skipif(
    not MIRROR.is_dir(), reason=f"needs the official files in {MIRROR} (<dataset>/<file name>)"
)
REAL = [pytest.param(name, marks=needs_mirror) for name in ("mnist", "fashion_mnist")]

IMAGES = "train-images-idx3-ubyte.gz"


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def idx(array: np.ndarray) -> bytes:
    """Encode as gzipped IDX: two zero bytes, type 8 (uint8), rank, big-endian sizes, data."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


def toy_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        IMAGES: rng.integers(0, 256, (12, 28, 28)),
        "train-labels-idx1-ubyte.gz": np.arange(12) % 10,
        "t10k-images-idx3-ubyte.gz": rng.integers(0, 256, (4, 28, 28)),
        "t10k-labels-idx1-ubyte.gz": np.arange(4),
    }


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {name: idx(array) for name, array in toy_arrays().items()}


@pytest.fixture
def toy(contents) -> Dataset:
    return Dataset(
        name="toy",
        class_names=tuple("0123456789"),
        files={name: md5(content) for name, content in contents.items()},
        urls=(),
        sizes={"train": 9, "validation": 3, "test": 4},
        decode=DATASETS["mnist"].decode,
        image_shape=(1, 28, 28),
    )


@pytest.fixture
def mirror(tmp_path, contents) -> Path:
    """Make a folder mirror of the toy data set."""
    folder = tmp_path / "mirror"
    (folder / "toy").mkdir(parents=True)
    for name, content in contents.items():
        (folder / "toy" / name).write_bytes(content)
    return folder


class Misbehaving(http.server.BaseHTTPRequestHandler):
    """Answers request k for a file with `behaviours[k]`, later requests with the last one."""

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        requests = self.server.requests.setdefault(name, [])
        behaviours = self.server.behaviours
        behaviour = behaviours[min(len(requests), len(behaviours) - 1)]
        requests.append(behaviour)
        if behaviour.isdigit():
            self.send_error(int(behaviour))
            return
        content = self.server.contents[name]
        sent = {
            "good": content,
            "half": content[: len(content) // 2],
            "half without length": content[: len(content) // 2],
            "wrong": content[:-1] + bytes([content[-1] ^ 1]),
        }[behaviour]
        self.send_response(200)
        if behaviour != "half without length":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(sent)  # the connection closes when this returns (HTTP/1.0)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(contents, monkeypatch):
    """Start servers on loopback: serve("half", "good") drops the first answer for each file."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(datasets, "TIMEOUT", 5.0)
    with contextlib.ExitStack() as running:

        def start(*behaviours, handler=Misbehaving):
            server = running.enter_context(serving(handler))
            server.contents, server.behaviours, server.requests = contents, behaviours, {}
            return server

        yield start


def source(mirror) -> str:
    """What a mirror, a folder or a server, is called in the record of the toy data set."""
    return f"{getattr(mirror, 'url', mirror)}/toy/"


def assert_complete(folder: Path, dataset: Dataset) -> None:
    """Every official file is there and right, and nothing else is there: no leftovers."""
    assert {file.name: md5(file.read_bytes()) for file in folder.iterdir()} == dataset.files


# --- fetching -----------------------------------------------------------------------------------


def test_fetch_from_a_plain_http_server(toy, mirror, tmp_path, serve):
    server = serve(handler=files_of(mirror))
    served = fetch(toy, tmp_path / "raw", mirrors=[server.url])
    assert served == dict.fromkeys(toy.files, source(server))
    assert_complete(tmp_path / "raw", toy)
    (tmp_path / "other").touch()  # what the umask allows others, they may do here too
    assert {(tmp_path / "raw" / name).stat().st_mode for name in toy.files} == {
        (tmp_path / "other").stat().st_mode
    }


def test_a_second_fetch_asks_nobody(toy, mirror, tmp_path):
    fetch(toy, tmp_path / "raw", mirrors=[str(mirror)])
    assert fetch(toy, tmp_path / "raw", mirrors=[]) == dict.fromkeys(toy.files, "cache")


@pytest.mark.parametrize("behaviour", ["half", "half without length", "wrong", "404", "503"])
def test_a_bad_source_leaves_nothing_and_the_next_one_serves(toy, tmp_path, serve, behaviour):
    bad, good = serve(behaviour), serve("good")
    with pytest.raises(DatasetError):
        fetch(toy, tmp_path / "alone", mirrors=[bad.url])
    assert list((tmp_path / "alone").iterdir()) == []

    served = fetch(toy, tmp_path / "raw", mirrors=[bad.url, good.url])
    assert served == dict.fromkeys(toy.files, source(good))
    assert_complete(tmp_path / "raw", toy)


@pytest.mark.parametrize("first", ["half", "half without length", "wrong", "503"])
def test_a_passing_failure_is_tried_again(toy, tmp_path, serve, first):
    server = serve(first, "good")
    assert fetch(toy, tmp_path, mirrors=[server.url]) == dict.fromkeys(toy.files, source(server))
    assert server.requests == {name: [first, "good"] for name in toy.files}
    assert_complete(tmp_path, toy)


def test_attempts_are_bounded(toy, tmp_path, serve):
    dropping, missing = serve("half"), serve("404")
    with pytest.raises(DatasetError):
        fetch(toy, tmp_path, mirrors=[dropping.url, missing.url])
    assert dropping.requests == {IMAGES: ["half"] * datasets.ATTEMPTS}
    assert missing.requests == {IMAGES: ["404"]}


def test_a_silent_server_times_out(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "ATTEMPTS", 1)
    monkeypatch.setattr(datasets, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(DatasetError, match="timed out"):
            fetch(toy, tmp_path, mirrors=[url])


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends without end: a byte now and then, or as much as is taken."""

    chunk, pause = b"x" * 2**16, 0.0

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while True:
                self.wfile.write(self.chunk)
                time.sleep(self.pause)

    def log_message(self, *_):
        pass


class Dripping(Endless):
    chunk, pause = b"x", 0.02


@pytest.mark.parametrize(
    ("handler", "limit", "value", "said"),
    [
        (Dripping, "DEADLINE", 0.3, "not complete after 0.3 s"),
        (Endless, "LARGEST", 2**20, "longer than 1048576 bytes"),
    ],
)
def test_an_answer_without_end_is_given_up_and_the_next_source_serves(
    toy, mirror, tmp_path, serve, monkeypatch, handler, limit, value, said
):
    monkeypatch.setattr(datasets, limit, value)
    one = dataclasses.replace(toy, files={IMAGES: toy.files[IMAGES]})
    bad = serve(handler=handler).url
    with pytest.raises(DatasetError, match=said):
        fetch(one, tmp_path / "alone", mirrors=[bad])
    assert list((tmp_path / "alone").iterdir()) == []
    assert fetch(one, tmp_path / "raw", mirrors=[bad, str(mirror)]) == {IMAGES: source(mirror)}


def test_what_is_no_file_is_not_waited_for(toy, mirror, tmp_path):
    (mirror / "toy" / IMAGES).unlink()
    os.mkfifo(mirror / "toy" / IMAGES)
    with pytest.raises(DatasetError, match="no such file"):
        fetch(toy, tmp_path / "raw", mirrors=[str(mirror)])
    os.mkfifo(tmp_path / "raw" / IMAGES)
    with pytest.raises(DatasetError, match="expected a file, got something else; move it away"):
        fetch(toy, tmp_path / "raw", mirrors=[str(mirror)])


@pytest.mark.parametrize("spelt", ["~/my data", "$HOME/my data", "${HOME}/my data", "file://{}"])
@pytest.mark.parametrize("below", ["toy", "Toy/raw", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_a_mirror_is_found_as_it_is_spelt_laid_out_and_packed(
    toy, contents, tmp_path, monkeypatch, spelt, below, packed
):
    folder = tmp_path / "my data" / below
    folder.mkdir(parents=True)
    for name, content in contents.items():
        path = folder / name if packed else folder / name.removesuffix(".gz")
        path.write_bytes(content if packed else gzip.decompress(content))
    monkeypatch.setenv("HOME", str(tmp_path))
    sums = {name: md5(gzip.decompress(content)) for name, content in contents.items()}
    known = dataclasses.replace(toy, contents=sums, folders=("Toy/raw",))
    raw = tmp_path / "raw"
    mirror = spelt.replace("{}", (tmp_path / "my data").as_uri().removeprefix("file://"))
    assert fetch(known, raw, mirrors=[mirror]) == dict.fromkeys(toy.files, f"{folder}/")
    assert fetch(known, raw) == dict.fromkeys(toy.files, "cache")
    taken = datasets.prepare(known, raw)
    for name, content in contents.items():
        (raw / name).write_bytes(content)
    official = datasets.prepare(toy, raw)
    assert all(torch.equal(taken[key], official[key]) for key in official)
    (raw / IMAGES).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DatasetError, match="md5 mismatch"):
        datasets.prepare(known, raw)


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content + b"x"])
def test_a_damaged_cache_is_fetched_again(toy, mirror, tmp_path, damage):
    raw = tmp_path / "raw"
    fetch(toy, raw, mirrors=[str(mirror)])
    (raw / IMAGES).write_bytes(damage((raw / IMAGES).read_bytes()))
    assert fetch(toy, raw, mirrors=[str(mirror)]) == dict.fromkeys(toy.files, "cache") | {
        IMAGES: source(mirror)
    }
    assert_complete(raw, toy)


def test_a_damaged_file_is_kept_until_another_takes_its_place(toy, tmp_path, serve):
    """It may lie in a linked folder of the user's own."""
    (tmp_path / IMAGES).write_bytes(b"damaged")
    for mirrors in ([], [serve("wrong").url]):
        with pytest.raises(DatasetError, match="the file there has another md5 sum"):
            fetch(toy, tmp_path, mirrors=mirrors)
        assert [file.name for file in tmp_path.iterdir()] == [IMAGES]
        assert (tmp_path / IMAGES).read_bytes() == b"damaged"
    fetch(toy, tmp_path, mirrors=[serve("good").url])
    assert_complete(tmp_path, toy)


def test_the_local_mirror_goes_first(toy, mirror, tmp_path, serve):
    server = serve("good")
    assert set(fetch(toy, tmp_path / "raw", mirrors=[str(mirror), server.url]).values()) == {
        source(mirror)
    }
    assert server.requests == {}


def test_a_damaged_file_in_the_local_mirror_falls_to_the_next_source(toy, mirror, tmp_path, serve):
    (mirror / "toy" / IMAGES).write_bytes(b"damaged")
    server = serve("good")
    served = fetch(toy, tmp_path / "raw", mirrors=[str(mirror), server.url])
    assert served == dict.fromkeys(toy.files, source(mirror)) | {IMAGES: source(server)}
    assert_complete(tmp_path / "raw", toy)
    assert (mirror / "toy" / IMAGES).read_bytes() == b"damaged"  # a mirror is never written to


def test_when_nothing_serves_the_message_lists_every_source_and_the_remedy(
    toy, tmp_path, serve, contents
):
    empty = tmp_path / "empty"
    empty.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unreachable = f"http://127.0.0.1:{closed.getsockname()[1]}"
    missing, half, wrong = serve("404"), serve("half"), serve("wrong")
    mirrors = ["no/such", str(empty), missing.url, half.url, wrong.url, unreachable]
    with pytest.raises(DatasetError) as caught:
        fetch(toy, tmp_path / "raw", mirrors=mirrors)
    got = md5(contents[IMAGES][:-1] + bytes([contents[IMAGES][-1] ^ 1]))
    reasons = [
        ["no/such: no such folder: ", str(Path("no/such").resolve())],
        [f"{empty}: no such file: {empty / 'toy' / IMAGES}"],
        [f"{missing.url}/toy/: 404 ", "Not Found"],
        [f"{half.url}/toy/: ", "IncompleteRead"],
        [f"{wrong.url}/toy/: ", toy.files[IMAGES], got],
        [f"{unreachable}/toy/: ", "Connection refused"],
    ]
    lines = [line.strip() for line in str(caught.value).splitlines()]
    for line, words in zip(lines[1:], reasons, strict=False):
        assert line.startswith(words[0])
        assert all(word in line for word in words)
    assert f"{tmp_path / 'raw'}/" in str(caught.value)
    for name, expected in toy.files.items():
        assert f"{name}  (md5 {expected})" in lines
    assert "`mirror:` in config.yaml" in lines[-1]


@pytest.mark.parametrize("name", REAL)
def test_what_is_in_the_official_files_is_known(name):
    files = {file.name: file for file in (MIRROR / name).glob("*.gz")}
    assert DATASETS[name].contents == {
        filename: md5(gzip.decompress(files[filename].read_bytes()))
        for filename in DATASETS[name].files
    }


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_registry_agrees_with_torchvision(name):
    from torchvision.datasets import MNIST, FashionMNIST

    reference = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    assert dict(DATASETS[name].files) == dict(reference.resources)
    assert set(reference.mirrors) <= set(DATASETS[name].urls)
    assert all(url.endswith("/") for url in DATASETS[name].urls)
    if name == "fashion_mnist":
        assert DATASETS[name].class_names == tuple(reference.classes)


# --- splits -------------------------------------------------------------------------------------

# SHA-256 of the indices as little-endian int64. Another value means another experiment.
PINNED = {
    "mnist": {
        "train": "4b565afcaac68a3ef6d88cf6f19607da6e484c52c33ab946a7ee56d20abc6a99",
        "validation": "5c485011518b2b931c01a7c3bb187bb135c7f474f5d08f9b77b9a4c073598cca",
        "test": "9e1c19b3fdc185411bd1a987deb6a9fda2531116aac060a84c4d878854d1c099",
    },
    "cifar10": {
        "train": "e3691a935ed976d62695ebd3feaae93664641786ee1f97629497094c520ee3ff",
        "validation": "00776356879693c3c5d803b3aaf02d7af338c9879fc4179036b40d5fb8070a71",
        "test": "9e1c19b3fdc185411bd1a987deb6a9fda2531116aac060a84c4d878854d1c099",
    },
    "digits": {
        "train": "d9c4d76192114a2f86001ca69080a93483c85e784c556f1733de9205f27451a0",
        "validation": "ec11ec504209d5e51af09e7fb5c04fd7ca731dd6729bdcf9d401aa3aff574040",
        "test": "6696c7ae8af0a8710e5d7e7d23565cc2cb944f19e1f71a75221bc83f001a157f",
    },
}


@pytest.mark.parametrize("name", DATASETS)
def test_splits_are_disjoint_sorted_and_cover_the_official_files(name):
    dataset = DATASETS[name]
    indices = datasets.split_indices(dataset)
    assert {split: len(index) for split, index in indices.items()} == dataset.sizes
    assert all((np.diff(index) > 0).all() for index in indices.values())
    official = {"train": SPLITS} if name == "digits" else {"train": SPLITS[:2], "test": SPLITS[2:]}
    totals = {"train": 60_000, "test": 10_000}
    totals |= {"digits": {"train": 1797}, "cifar10": {"train": 50_000}}.get(name, {})
    for part, splits in official.items():
        union = np.sort(np.concatenate([indices[split] for split in splits]))
        assert np.array_equal(union, np.arange(totals[part]))


@pytest.mark.parametrize("name", PINNED)
def test_splits_are_pinned(name):
    indices = datasets.split_indices(DATASETS[name])
    digests = {
        split: hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()
        for split, index in indices.items()
    }
    assert digests == PINNED[name]


# --- decoding -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Fetch and prepare a real data set once for all tests."""
    cache = {}

    def get(name):
        if name not in cache:
            raw = tmp_path_factory.mktemp(name)
            datasets.fetch(DATASETS[name], raw, mirrors=[str(MIRROR)])
            cache[name] = raw, datasets.prepare(DATASETS[name], raw)
        return cache[name]

    return get


@pytest.mark.parametrize("name", [*REAL, "digits"])
def test_prepared_shapes_and_types(prepared, name):
    dataset, (_, tensors) = DATASETS[name], prepared(name)
    assert len(tensors) == 9
    for split, n in dataset.sizes.items():
        images, labels, index = (tensors[f"{split}_{f}"] for f in ("images", "labels", "index"))
        assert (images.shape, images.dtype) == ((n, *dataset.image_shape), torch.uint8)
        assert (labels.shape, labels.dtype) == ((n,), torch.int64)
        assert (index.shape, index.dtype) == ((n,), torch.int64)


# The published class counts; Fashion-MNIST is balanced by construction.
MNIST_TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize("name", REAL)
def test_class_counts_are_the_published_ones(prepared, name):
    _, tensors = prepared(name)
    expected = {
        "mnist": (MNIST_TRAIN_COUNTS, MNIST_TEST_COUNTS),
        "fashion_mnist": ([6000] * 10, [1000] * 10),
    }[name]
    train = torch.cat([tensors["train_labels"], tensors["validation_labels"]])
    counts = train.bincount().tolist(), tensors["test_labels"].bincount().tolist()
    assert counts == expected


@pytest.mark.parametrize("name", REAL)
def test_images_and_labels_are_those_of_torchvision(prepared, tmp_path, name):
    from torchvision.datasets import MNIST, FashionMNIST

    reference = {"mnist": MNIST, "fashion_mnist": FashionMNIST}[name]
    raw, tensors = prepared(name)
    unpacked = tmp_path / reference.__name__ / "raw"
    assert DATASETS[name].folders == (str(unpacked.relative_to(tmp_path)),)
    unpacked.mkdir(parents=True)
    for filename in DATASETS[name].files:
        content = gzip.decompress((raw / filename).read_bytes())
        (unpacked / filename.removesuffix(".gz")).write_bytes(content)
    for split in SPLITS:
        official = reference(tmp_path, train=split != "test", download=False)
        index = tensors[f"{split}_index"]
        assert torch.equal(tensors[f"{split}_images"][:, 0], official.data[index])
        assert torch.equal(tensors[f"{split}_labels"], official.targets[index])


def test_digits_are_those_of_scikit_learn(prepared):
    from sklearn.datasets import load_digits

    digits = load_digits()
    _, tensors = prepared("digits")
    for split in SPLITS:
        index = tensors[f"{split}_index"].numpy()
        grey = tensors[f"{split}_images"][:, 0].numpy().astype(float)
        assert np.abs(grey / 255 - digits.images[index] / 16).max() <= 1 / 510
        assert np.array_equal(tensors[f"{split}_labels"].numpy(), digits.target[index])
    assert tensors["train_images"].unique().tolist() == [
        *(0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255)
    ]


def test_toy_is_decoded_exactly(toy, mirror):
    tensors = datasets.prepare(toy, mirror / "toy")
    arrays = toy_arrays()
    for split, prefix in {"train": "train", "validation": "train", "test": "t10k"}.items():
        index = tensors[f"{split}_index"].numpy()
        images = arrays[f"{prefix}-images-idx3-ubyte.gz"][index]
        assert np.array_equal(tensors[f"{split}_images"][:, 0].numpy(), images)
        labels = arrays[f"{prefix}-labels-idx1-ubyte.gz"][index]
        assert np.array_equal(tensors[f"{split}_labels"].numpy(), labels)


@pytest.mark.parametrize("served", [True, False])
def test_colour_images_keep_their_channels(tmp_path, serve, served):
    mirror, path = tmp_path / "mirror", tmp_path / "tiny_cifar10.safetensors"
    tiny_cifar10.write_mirror(mirror)
    dataset = load_plugin("dataset", tiny_cifar10.__file__).DATASET
    address = serve(handler=files_of(mirror)).url if served else str(mirror)
    fetch(dataset, tmp_path / "raw", [address])
    tensors = datasets.prepare(dataset, tmp_path / "raw")
    datasets.save(tensors, path, datasets.describe(dataset, tensors))

    first, second, test = tiny_cifar10.batches().values()
    train = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    for split, (pictures, labels) in {"train": train, "validation": train, "test": test}.items():
        loaded = data.load(path, split)
        assert loaded.images.dtype == torch.float32
        assert loaded.images.shape == (dataset.sizes[split], 3, 32, 32)
        for colour in range(3):
            found = (loaded.images[:, colour] * 255).round().byte().numpy()
            assert np.array_equal(found, pictures[loaded.index, colour])
        assert np.array_equal(loaded.labels, labels[loaded.index])
    assert data.class_names(path) == list(dataset.class_names)


def test_cifar10_is_the_published_archive_alone(tmp_path, serve):
    """Its MD5 sum is that of https://www.cs.toronto.edu/~kriz/cifar.html."""
    dataset, raw = DATASETS["cifar10"], tmp_path / "raw"
    (md5_sum,) = dataset.files.values()
    assert md5_sum == "c32a1d4ab5d03f1284b67883e8d87530"
    served = tmp_path / "mirror/cifar10" / tiny_cifar10.ARCHIVE
    served.parent.mkdir(parents=True)
    served.write_bytes(tiny_cifar10.archive())
    alone = dataclasses.replace(dataset, urls=())
    with pytest.raises(DatasetError, match=md5_sum):
        fetch(alone, raw, [serve(handler=files_of(tmp_path / "mirror")).url])
    assert list(raw.iterdir()) == []
    (raw / tiny_cifar10.ARCHIVE).write_bytes(tiny_cifar10.archive()[:-100])
    with pytest.raises(DatasetError, match=r"md5 mismatch: .* fetch cifar10 again"):
        datasets.prepare(alone, raw)


def test_prepare_refuses_missing_damaged_and_unexpected_files(toy, mirror, tmp_path):
    with pytest.raises(DatasetError, match="fetch toy first"):
        datasets.prepare(toy, tmp_path / "nowhere")
    sizes = {"train": 9, "validation": 2, "test": 4}
    other = dataclasses.replace(toy, sizes=sizes)
    with pytest.raises(DatasetError, match=r"\(11, 1, 28, 28\) and 11 labels, got .* \(12, 1, 28"):
        datasets.prepare(other, mirror / "toy")
    other = dataclasses.replace(toy, class_names=toy.class_names[:-1])
    with pytest.raises(DatasetError, match=r"labels from 0 to 8, one per class name, got .* to 9"):
        datasets.prepare(other, mirror / "toy")
    # Valid gzip and valid IDX, but not the official content: only the MD5 sum can tell.
    (mirror / "toy" / IMAGES).write_bytes(idx(toy_arrays()[IMAGES][::-1]))
    with pytest.raises(DatasetError, match="md5 mismatch"):
        datasets.prepare(toy, mirror / "toy")


# --- storing ------------------------------------------------------------------------------------


@pytest.fixture
def saved(toy, mirror, tmp_path):
    tensors = datasets.prepare(toy, mirror / "toy")
    path = tmp_path / "data" / "toy.safetensors"
    datasets.save(tensors, path, datasets.describe(toy, tensors))
    return path, tensors


def test_the_file_says_what_it_holds(saved):
    path, tensors = saved
    with safetensors.safe_open(path, framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["dataset"] == "toy"
    assert provenance["class_names"] == list("0123456789")
    assert provenance["sizes"] == {"train": 9, "validation": 3, "test": 4}
    assert provenance["split_seed"] == datasets.SPLIT_SEED
    for split in SPLITS:
        content = tensors[f"{split}_images"].numpy().tobytes()
        content += tensors[f"{split}_labels"].numpy().tobytes()
        assert provenance["sha256"][split] == hashlib.sha256(content).hexdigest()


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_else(saved, monkeypatch):
    path, tensors = saved
    before = path.read_bytes()

    def fail_half_way(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        datasets.save({"train_images": tensors["train_images"]}, path, {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
