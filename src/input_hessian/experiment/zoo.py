"""The networks of the released run, one per data set and regularizer."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from input_hessian.experiment.errors import UserError, closest
from input_hessian.experiment.models import load_model

RELEASED = Path(__file__).parents[3] / "reports/paper/networks"  # in a clone of the repository


def network_names(folder: str | Path = RELEASED) -> list[tuple[str, str]]:
    """Return data set and regularizer of every network there is."""
    return [tuple(path.stem.split(".")) for path in sorted(Path(folder).glob("*.safetensors"))]


def load_network(dataset: str, regularizer: str, folder: str | Path = RELEASED) -> nn.Module:
    """Return a trained network, ready for evaluation: images ``[B, 1, 28, 28]`` in [0, 1] to logits.

    It is the first seed at the lam that validation images chose; ``README.md`` in the folder says how
    it was trained and what it withstands.

    Args:
        dataset: ``"mnist"`` or ``"fashion_mnist"``.
        regularizer: a name of ``config.yaml``: ``"none"``, ``"gradient"``, ``"hessian"``, ...
        folder: where the networks are; by default those of this clone of the repository.

    Raises:
        UserError: naming what there is, if there is no such network.
    """
    names = [f"{of} {name}" for of, name in network_names(folder)]
    if (name := f"{dataset} {regularizer}") not in names:
        raise UserError(
            f"load_network: got {name!r}, expected one of {', '.join(names)}{closest(name, names)}"
            if names
            else f"load_network: there are no networks in {folder}; those of the released run are in "
            "reports/paper/networks of a clone of the repository: say which folder"
        )
    network, _ = load_model(Path(folder) / f"{dataset}.{regularizer}.safetensors")
    return network
