"""Prepared data sets as jobs read them."""

import itertools

import numpy as np
import pytest
import torch

from input_hessian.experiment import data, datasets
from input_hessian.experiment.data import SPLITS, DatasetError

SIZES = {"train": 9, "validation": 3, "test": 4}
CLASS_NAMES = ["cat", "dog", "ship"]
PINNED_SUBSET = [1253, 4183, 8013, 8723, 9934]


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for split, n in SIZES.items():
        bytes_ = torch.randint(256, (n, 3, 5, 4), dtype=torch.uint8, generator=generator)
        tensors[f"{split}_images"] = bytes_
        tensors[f"{split}_labels"] = torch.arange(n) % 3
        tensors[f"{split}_index"] = torch.randperm(n, generator=generator)
    return tensors


@pytest.fixture
def path(tmp_path, tensors):
    path = tmp_path / "data" / "toy.safetensors"
    provenance = {"class_names": CLASS_NAMES, "sha256": datasets.checksums(tensors)}
    datasets.save(tensors, path, provenance)
    return path


def test_images_come_back_on_the_scale_from_0_to_1(path, tensors):
    for split in SPLITS:
        images, labels, index = data.load(path, split)
        assert images.dtype == torch.float32
        assert images.max() <= 1
        assert torch.equal((images * 255).round().byte(), tensors[f"{split}_images"])
        assert torch.equal(images, tensors[f"{split}_images"] / 255)
        assert torch.equal(labels, tensors[f"{split}_labels"])
        assert torch.equal(index, tensors[f"{split}_index"])
    assert data.class_names(path) == CLASS_NAMES
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("split", SPLITS)
def test_evaluation_images_are_those_of_the_subset(path, split):
    whole, chosen = data.load(path, split), data.evaluation_images(path, 3, split)
    subset = data.evaluation_subset(3, SIZES[split])
    for field, of_all in zip(chosen, whole, strict=True):
        assert torch.equal(field, of_all[subset])


def test_evaluation_subset_is_sorted_nested_and_random():
    subsets = [data.evaluation_subset(n, 10_000) for n in (1, 100, 1000, 10_000)]
    for small, large in itertools.pairwise(subsets):
        assert set(small) < set(large)
    assert all(subset.dtype == np.int64 and (np.diff(subset) > 0).all() for subset in subsets)
    assert np.array_equal(subsets[-1], np.arange(10_000))
    # 1000 draws without replacement: the share below 5000 has a standard deviation of 0.015.
    assert np.mean(subsets[2] < 5000) == pytest.approx(0.5, abs=0.06)
    assert data.evaluation_subset(5, 10_000).tolist() == PINNED_SUBSET
    assert not np.array_equal(subsets[1], data.evaluation_subset(100, 10_000, seed=1))


@pytest.mark.parametrize("n", [-1, 0, 11])
def test_evaluation_subset_of_an_impossible_size_is_an_error(n):
    with pytest.raises(DatasetError, match=f"between 1 and 10 evaluation images, got {n}"):
        data.evaluation_subset(n, 10)


@pytest.mark.parametrize("keep", [0, 7, 300, -1])
def test_a_truncated_file_is_an_error_with_a_remedy(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    for read in (lambda: data.load(path, "train"), lambda: data.class_names(path)):
        with pytest.raises(DatasetError, match="delete the file and run snakemake again"):
            read()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("field", ["images", "labels"])
def test_a_changed_image_or_label_is_not_believed(path, tensors, split, field):
    provenance = {"class_names": CLASS_NAMES, "sha256": datasets.checksums(tensors)}
    tensors[f"{split}_{field}"][1] += 1
    datasets.save(tensors, path, provenance)
    for other in SPLITS:
        if other != split:
            data.load(path, other)
    with pytest.raises(DatasetError, match=f"{split} images or labels are not those.*delete it"):
        data.load(path, split)


def test_errors_say_what_to_do(path, tmp_path):
    with pytest.raises(DatasetError, match="run snakemake"):
        data.load(tmp_path / "missing.safetensors", "train")
    with pytest.raises(DatasetError, match="train, validation, test, got 'dev'"):
        data.load(path, "dev")
    datasets.save({"weight": torch.zeros(3)}, path, {})  # of another program
    for read in (lambda: data.load(path, "train"), lambda: data.class_names(path)):
        with pytest.raises(DatasetError, match="delete the file"):
            read()
