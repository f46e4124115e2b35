"""Adversarial attacks, recorded per image.

The attacks are foolbox's (Rauber et al. 2020).  Here stands what a trustworthy record needs around
them: an image once broken is not attacked again at a larger epsilon (its adversarial example lies
in the larger ball as well), restarts attack only what is left, and no adversarial example counts
before its distance, its pixel range and the network's verdict have been checked independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import foolbox
import torch
from torch import Tensor, nn

from input_hessian.errors import UserError
from input_hessian.training import predict

# Largest rounding by which float32 images may leave a ball: 784 pixels, each within 2^-24.
ROUNDING = 1e-5


class AttackError(RuntimeError):
    """An attack returned an image that it must not return."""


@dataclass(frozen=True)
class AttackSettings:
    """One attack.

    Args:
        attack: ``"fgsm"`` (Goodfellow et al. 2015; for l2, the normalised gradient step) or
            ``"pgd"`` (Madry et al. 2018, cross-entropy, uniform random start).
        norm: ``"linf"`` or ``"l2"``, in pixel units.
        steps: of one PGD run; the step size is ``2.5 * epsilon / steps`` (Madry et al. 2018).
        restarts: PGD runs from new random starts, on the images still standing.
    """

    attack: str
    norm: str
    steps: int = 1
    restarts: int = 1


@dataclass(frozen=True)
class AttackRecord:
    """What one attack did to N images at E epsilons.

    Attributes:
        epsilons: ``[E]``, increasing.
        robust: bool ``[E, N]``: correctly classified, and not broken at this or a smaller epsilon.
        adversarial: ``[N, *image]``: the adversarial example at the smallest epsilon that has one;
            the image itself where the network is wrong already or no attack succeeded.
        epsilon_found: ``[N]``: that smallest epsilon; 0 where wrong already, infinite where none.
    """

    epsilons: list[float]
    robust: Tensor
    adversarial: Tensor
    epsilon_found: Tensor


LINF, L2 = "linf", "l2"


def _fgsm(settings: AttackSettings) -> foolbox.Attack:
    return {LINF: foolbox.attacks.LinfFastGradientAttack, L2: foolbox.attacks.L2FastGradientAttack}[
        settings.norm
    ]()


def _pgd(settings: AttackSettings) -> foolbox.Attack:
    attack = {LINF: foolbox.attacks.LinfPGD, L2: foolbox.attacks.L2PGD}[settings.norm]
    return attack(rel_stepsize=2.5 / settings.steps, steps=settings.steps)


ATTACKS: dict[str, Callable[[AttackSettings], foolbox.Attack]] = {"fgsm": _fgsm, "pgd": _pgd}


def perturbation_norm(images: Tensor, adversarial: Tensor, norm: str) -> Tensor:
    """Return the perturbation's size of every image, ``[N]``, in ``norm`` ``linf`` or ``l2``."""
    order = {LINF: math.inf, L2: 2}[norm]
    return torch.linalg.vector_norm((adversarial - images).flatten(1), ord=order, dim=1)


def run_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: AttackSettings,
    epsilons: Sequence[float],
    *,
    seed: int,
    batch_size: int = 500,
) -> AttackRecord:
    """Attack every image at every epsilon.

    Args:
        model: network in evaluation mode; images and labels are moved to its device.
        images: ``[N, *image]`` in [0, 1].
        labels: ``[N]``.
        settings: which attack.
        epsilons: radii in pixel units, positive and increasing.
        seed: of the random starts; the global generator is left as it was.
        batch_size: images attacked at a time.

    Raises:
        UserError: for an unknown attack or norm, or epsilons that do not increase from above 0.
        AttackError: if an image comes back outside the ball or outside [0, 1].
    """
    if settings.attack not in ATTACKS or settings.norm not in (LINF, L2):
        raise UserError(
            f"attack: expected one of {', '.join(ATTACKS)} with norm linf or l2, got {settings}"
        )
    if not epsilons or not all(
        low < high for low, high in zip([0, *epsilons], epsilons, strict=False)
    ):
        raise UserError(f"epsilons: expected increasing numbers above 0, got {list(epsilons)}")
    attack = ATTACKS[settings.attack](settings)
    standing = predict(model, images).argmax(1) == labels
    found = torch.where(standing, math.inf, 0.0).double()
    adversarial = images.clone()
    robust = []
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for epsilon in epsilons:
            for _ in range(settings.restarts):
                if not standing.any():  # foolbox refuses an empty batch
                    break
                for part in standing.nonzero().squeeze(1).split(batch_size):
                    candidates = _attack_batch(attack, model, images[part], labels[part], epsilon)
                    broken = _verified(
                        model, images[part], labels[part], candidates, settings.norm, epsilon
                    )
                    hit = part[broken]
                    adversarial[hit] = candidates[broken]
                    found[hit] = epsilon
                    standing[hit] = False
            robust.append(standing.clone())
    return AttackRecord(list(epsilons), torch.stack(robust), adversarial, found)


def _attack_batch(attack, model, images, labels, epsilon) -> Tensor:
    device = next(model.parameters()).device
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
    criterion = foolbox.criteria.Misclassification(labels.to(device))
    _, clipped, _ = attack(wrapped, images.to(device), criterion, epsilons=epsilon)
    return clipped.detach().cpu()


def _verified(model, images, labels, candidates, norm, epsilon) -> Tensor:
    """Return which candidates the network gets wrong, after checking ball and pixel range."""
    distance = perturbation_norm(images, candidates, norm)
    if not (distance <= epsilon + ROUNDING).all():  # also refuses NaN
        raise AttackError(
            f"{norm} attack at epsilon {epsilon} returned a perturbation of {distance.max():.6g}"
        )
    if candidates.min() < 0 or candidates.max() > 1:
        raise AttackError(
            f"{norm} attack at epsilon {epsilon} returned pixels in "
            f"[{candidates.min():.6g}, {candidates.max():.6g}], outside [0, 1]"
        )
    return predict(model, candidates).argmax(1) != labels
