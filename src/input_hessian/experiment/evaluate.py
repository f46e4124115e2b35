"""Clean and robust accuracy of any network, by the attacks of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch
from torch import Tensor, nn

from input_hessian.experiment.attacks import AttackSettings, checked_epsilons, clean_verdicts
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.inference import frozen, mode_kept
from input_hessian.experiment.results import robust_accuracy, worst_case

# Those of config.yaml.
ATTACKS = (
    AttackSettings("fgsm", "linf"),
    AttackSettings("pgd", "linf", steps=40),
    AttackSettings("pgd", "l2", steps=40),
    AttackSettings("ddn", "l2", steps=100),
    AttackSettings("apgd-ce", "linf"),
    AttackSettings("apgd-t", "linf", radii="headline"),
    AttackSettings("apgd-ce", "l2"),
    AttackSettings("apgd-t", "l2", radii="headline"),
)


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Mapping[str, Sequence[float]],
    attacks: Sequence[AttackSettings] = ATTACKS,
    seed: int = 0,
) -> pd.DataFrame:
    """Attack a network and return its clean and robust accuracy.

    Of the same network, images, radii and attacks, the numbers are those of the workflow: of the network that
    it trained with this seed, with the largest radius as its headline.  The images that it
    attacks are ``evaluation_images("data/mnist.safetensors", 1000)`` of
    :mod:`input_hessian.experiment.data`.

    Args:
        model: maps images to logits ``[N, K]``, image by image, in float32 or float64; any
            normalisation belongs inside.  It is attacked in evaluation mode, and left as it was.
        images: ``[N, *image]`` in [0, 1], of the network's dtype.
        labels: ``[N]``, int64.
        epsilons: radii per norm, ``{"linf": [...], "l2": [...]}``, in pixel units, increasing; attacks
            of a norm that has none are left out.
        attacks: which, and how strong; one with ``radii="headline"`` runs at the largest radius alone.
        seed: of the attacks.  Random starts are drawn radius after radius, so that the numbers at one
            radius also depend on which others there are.

    Returns:
        A row per attack, norm and epsilon: ``attack, norm, epsilon, n, robust, robust_accuracy, low,
        high``, the last two its 95% Wilson interval.  Epsilon 0 is the clean accuracy; attack
        ``worst`` counts the images that withstand every attack of the norm at this and every
        smaller radius.  An attack on survivors alone (:func:`run_attacks`) is counted with
        those before it.

    Raises:
        UserError, ValueError: as :func:`input_hessian.experiment.attacks.run_attack`; or if the network
            cannot evaluate images of this shape.
    """
    found = outcomes(model, images, labels, epsilons=epsilons, attacks=attacks, seed=seed)
    return robust_accuracy(pd.concat([worst_case(found), found]))


def outcomes(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Mapping[str, Sequence[float]],
    attacks: Sequence[AttackSettings] = ATTACKS,
    seed: int = 0,
) -> pd.DataFrame:
    """Attack a network and return which image withstood what, as arguments of :func:`evaluate`.

    Returns:
        A row per image, attack, norm and epsilon: ``index`` (0 to N - 1), ``robust, attack, norm,
        epsilon``.

    Raises:
        UserError, ValueError: as :func:`evaluate`.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"model: expected a torch.nn.Module, got a {type(model).__name__}")
    if not all(isinstance(attack, AttackSettings) for attack in attacks):
        raise UserError(f"attacks: expected a list of AttackSettings, got {attacks!r}")
    if not isinstance(epsilons, Mapping):
        raise UserError(f"epsilons: expected radii per norm, {{'linf': [0.1]}}, got {epsilons!r}")
    chosen = [attack for attack in attacks if attack.norm in epsilons]
    if not chosen or not set(epsilons) <= {"linf", "l2"}:
        raise UserError(
            "epsilons: expected linf or l2 with radii, for a norm of at least one of the attacks; "
            f"got {dict(epsilons)} for attacks of {sorted({attack.norm for attack in attacks})}"
        )
    radii_of = {norm: checked_epsilons(radii) for norm, radii in epsilons.items()}
    index = torch.arange(len(labels))
    with mode_kept(model):
        network = frozen(model)
        try:
            correct = clean_verdicts(network, images, labels)
        except RuntimeError as error:
            raise UserError(
                f"images: the network cannot evaluate a batch of shape {tuple(images.shape)}: {error}"
            ) from error
        with TemporaryDirectory() as folder:
            tables = [
                verdicts(settings, record, correct, index, labels.cpu())
                for settings, record in run_attacks(
                    network,
                    images,
                    labels,
                    chosen,
                    epsilons=radii_of,
                    headline={norm: radii[-1:] for norm, radii in radii_of.items()},
                    seed=seed,
                    records=Records(Path(folder), ""),
                )
            ]
        return pd.concat(tables).drop(columns="label")
