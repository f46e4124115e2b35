"""Handwritten digits, 8 x 8, bundled with scikit-learn: no download."""

from pathlib import Path

import numpy as np
import torch

from input_hessian.experiment.data import SPLITS
from input_hessian.experiment.datasets import Dataset, Part


def decode(folder: Path) -> dict[str, Part]:
    """Take scikit-learn's digits; `folder` is not used.

    The 17 grey levels k = 0..16 become round(255 k / 16), so that images of all data sets are bytes
    with full range; the rounding moves a pixel by at most 1/510 on the scale [0, 1].
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(np.rint(digits.images * (255 / 16)).astype(np.uint8))
    return {"train": (images[:, None], torch.from_numpy(digits.target.astype(np.int64)))}


DATASET = Dataset(
    name="digits",
    class_names=tuple("0123456789"),
    files={},
    urls=(),
    sizes={"train": 1_197, "validation": 200, "test": 400},
    decode=decode,
    image_shape=(1, 8, 8),
    parts={"train": SPLITS},  # no official test set
)
