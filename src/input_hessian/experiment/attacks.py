"""Adversarial attacks, recorded per image.

FGSM, PGD and DDN are foolbox's (Rauber et al. 2020); the four attacks of AutoAttack are its
authors' own code (Croce & Hein 2020) with the budgets of the standard version.  Here stands what a
trustworthy record needs around them: an image once broken is not attacked again at a larger
epsilon (its adversarial example lies in the larger ball as well), restarts and the expensive
attacks get only what is left, and no adversarial example counts before its distance, its pixel
range and the network's verdict have been checked independently.  The expensive attacks start at the
largest epsilon: what one of them leaves standing there it does not attack again in a smaller ball.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import foolbox
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.fab_pt import FABAttack_PT
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from input_hessian.experiment.errors import UserError, beyond_every_image, check_count
from input_hessian.experiment.inference import correct, device_of, frozen, predict
from input_hessian.hessian import check_batch, check_logits
from input_hessian.input_gradient import with_cheap_input_gradient

# Largest rounding by which float32 images may leave a ball: 784 pixels, each within 2^-24.
ROUNDING = 1e-5


class AttackError(RuntimeError):
    """An attack returned an image that it must not return."""


@dataclass(frozen=True)
class AttackSettings:
    """One attack.

    Args:
        attack: one of

            - ``"fgsm"``: Goodfellow et al. 2015; for l2, the normalised gradient step.
            - ``"pgd"``: Madry et al. 2018, cross-entropy, uniform random start.
            - ``"ddn"``: Rony et al. 2019, the smallest l2 perturbation of each image.
            - ``"apgd-ce"``, ``"apgd-t"``, ``"fab-t"``, ``"square"``: the standard AutoAttack of
              Croce & Hein 2020, with its budgets (100 iterations, one start, the nine most likely
              wrong classes as targets, 5000 queries) unless ``restarts`` or ``queries`` say otherwise.
        norm: ``"linf"`` or ``"l2"``, in pixel units.
        steps: of one PGD run (its step size is ``2.5 * epsilon / steps``, Madry et al. 2018), by default
            40, or of DDN, by default 100; the other attacks have a fixed budget.
        restarts: runs of PGD or APGD from new random starts, on the images still standing.
        queries: of Square, for each image.
        radii: ``"headline"`` where :func:`input_hessian.experiment.evaluation.run_attacks` runs it at
            the headline radii alone.

    Raises:
        UserError: for an unknown attack, norm or ``radii``, or numbers of steps, restarts or queries
            below 1.
    """

    attack: str
    norm: str
    steps: int | None = None
    restarts: int = 1
    queries: int = 5000
    radii: str | None = None

    def __post_init__(self):
        known = self.attack in ATTACKS and self.norm in (LINF, L2)
        if not known or (self.attack in MINIMAL_NORM and self.norm != L2):
            raise UserError(
                f"attack: expected one of {', '.join(ATTACKS)} with norm linf or l2 (ddn: l2 alone), "
                f"got {self}"
            )
        if self.steps is None:
            object.__setattr__(self, "steps", STEPS.get(self.attack, 1))
        if self.radii not in (None, "headline"):
            raise UserError(f"radii: expected headline or none, got {self.radii!r}")
        for name in ("steps", "restarts", "queries"):
            check_count(name, getattr(self, name))


@dataclass(frozen=True)
class AttackRecord:
    """What one attack did to N images at E epsilons.

    Attributes:
        epsilons: ``[E]``, increasing.
        robust: bool ``[E, N]``: correctly classified, and not broken at this or a smaller epsilon.
        adversarial: ``[N, *image]``: the adversarial example at the smallest epsilon that has one;
            the image itself where the network is wrong already or this attack found none.
        epsilon_found: ``[N]``: that smallest epsilon (of a minimal-norm attack: the perturbation's
            size); 0 where wrong already, infinite where none.
    """

    epsilons: list[float]
    robust: Tensor
    adversarial: Tensor
    epsilon_found: Tensor


LINF, L2 = "linf", "l2"
STEPS = {"pgd": 40, "ddn": 100}  # as in a configuration
# (model, images, labels, epsilon, seed) -> candidates; epsilon is None for a minimal-norm attack.
Attack = Callable[[nn.Module, Tensor, Tensor, float | None, int], Tensor]


def _foolbox(attack: foolbox.Attack) -> Attack:
    def run(model, images, labels, epsilon, seed):
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        criterion = foolbox.criteria.Misclassification(labels)
        _, clipped, _ = attack(wrapped, images, criterion, epsilons=epsilon)
        return clipped

    return run


def _fgsm(settings: AttackSettings) -> Attack:
    attack = {
        LINF: foolbox.attacks.LinfFastGradientAttack,
        L2: foolbox.attacks.L2FastGradientAttack,
    }
    return _foolbox(attack[settings.norm]())


def _pgd(settings: AttackSettings) -> Attack:
    attack = {LINF: foolbox.attacks.LinfPGD, L2: foolbox.attacks.L2PGD}[settings.norm]
    return _foolbox(attack(rel_stepsize=2.5 / settings.steps, steps=settings.steps))


def _ddn(settings: AttackSettings) -> Attack:
    return _foolbox(foolbox.attacks.DDNAttack(steps=settings.steps))


def _autoattack(build: Callable[..., object]) -> Callable[[AttackSettings], Attack]:
    """Wrap an attack of AutoAttack; ``build(settings, model, classes, **common)`` constructs it."""

    def from_settings(settings: AttackSettings) -> Attack:
        norm = {LINF: "Linf", L2: "L2"}[settings.norm]

        def run(model, images, labels, epsilon, seed):
            with torch.no_grad():
                classes = model(images[:1]).shape[1]
            smallest = 5 if settings.norm == L2 else 1  # its l2 start is a grid of five by five
            if settings.attack == "square" and (
                images.ndim != 4 or min(images.shape[2:]) < smallest
            ):
                raise UserError(
                    f"square: expected images [N, C, H, W] of at least {smallest} by {smallest} "
                    f"pixels, got shape {list(images.shape)}"
                )
            if settings.attack == "apgd-t" and classes < 4:  # its loss compares four logits
                raise UserError(f"apgd-t: expected at least 4 classes, got {classes}")
            common = {"norm": norm, "eps": epsilon, "seed": seed, "device": images.device}
            return build(settings, model, classes, **common).perturb(images, labels)

        return run

    return from_settings


def _targets(classes: int) -> int:
    return min(9, classes - 1)


ATTACKS: dict[str, Callable[[AttackSettings], Attack]] = {
    "fgsm": _fgsm,
    "pgd": _pgd,
    "ddn": _ddn,
    "apgd-ce": _autoattack(
        lambda settings, model, classes, **common: APGDAttack(
            model, n_restarts=settings.restarts, **common
        )
    ),
    "apgd-t": _autoattack(
        lambda settings, model, classes, **common: APGDAttack_targeted(
            model, n_restarts=settings.restarts, n_target_classes=_targets(classes), **common
        )
    ),
    "fab-t": _autoattack(
        lambda settings, model, classes, **common: FABAttack_PT(
            model, targeted=True, n_target_classes=_targets(classes), **common
        )
    ),
    "square": _autoattack(
        lambda settings, model, classes, **common: SquareAttack(
            model, n_queries=settings.queries, resc_schedule=False, **common
        )
    ),
}
# They find the smallest perturbation of every image in one run, for l2.
MINIMAL_NORM = {"ddn"}
# They are expensive: they get only what the attacks before them left standing, the largest ball first.
SURVIVORS_ONLY = {"apgd-ce", "apgd-t", "fab-t", "square"}


def perturbation_norm(images: Tensor, adversarial: Tensor, norm: str) -> Tensor:
    """Return the perturbation's size of every image, ``[N]``, in ``norm`` ``linf`` or ``l2``."""
    order = {LINF: math.inf, L2: 2}[norm]
    return torch.linalg.vector_norm((adversarial - images).flatten(1), ord=order, dim=1)


@torch.inference_mode(False)
@torch.enable_grad()
def run_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    settings: AttackSettings,
    epsilons: Sequence[float],
    *,
    seed: int,
    broken_at: Tensor | None = None,
    batch_size: int = 500,
) -> AttackRecord:
    """Attack every image at every epsilon.

    May be called under ``torch.no_grad`` or ``torch.inference_mode``.

    Args:
        model: maps images to logits ``[B, K]``, image by image, in float32 or float64; is put in
            evaluation mode.
        images: ``[N, *image]`` in [0, 1], of the network's dtype; moved to its device, as are the
            labels.  The attacks compute in float32, the verdicts on what they found do not.
        labels: ``[N]``, int64.
        settings: which attack.
        epsilons: radii in pixel units, positive and increasing.
        seed: of the random starts; the global generator is left as it was.
        broken_at: ``[N]``, float64, the smallest epsilon at which earlier attacks of this norm broke each
            image, infinite where none did: from there on it counts as broken and is not attacked.
        batch_size: images attacked at a time.

    Raises:
        UserError: for epsilons that do not increase from above 0 or reach beyond every image, a
            ``broken_at`` that is not float64 ``[N]``, or a batch size below 1.
        ValueError: as :func:`clean_verdicts`.
        AttackError: if an image comes back outside the ball or outside [0, 1].
    """
    check_count("batch_size", batch_size)
    epsilons, model = checked_epsilons(epsilons), frozen(model)
    correctly = clean_verdicts(model, images, labels)
    images, labels = images.detach().cpu(), labels.detach().cpu()
    if problem := beyond_every_image(settings.norm, epsilons[-1], images.shape[1:]):
        raise UserError(f"epsilons: {problem}")
    found = torch.where(correctly, math.inf, 0.0).double()
    before = found
    if broken_at is not None:
        # rounded to float32, it misses its epsilon
        if broken_at.dtype != torch.float64 or broken_at.shape != labels.shape:
            raise UserError(
                f"broken_at: expected float64 of shape ({len(labels)},), "
                f"got {broken_at.dtype} of shape {tuple(broken_at.shape)}"
            )
        before = torch.minimum(found, broken_at.cpu())
    attack = ATTACKS[settings.attack](settings)
    attacked = with_cheap_input_gradient(model)
    if images.dtype != torch.float32:
        attacked = _InSinglePrecision(attacked, images.dtype)
    device = device_of(model)
    adversarial = images.clone()

    def attack_images(chosen: Tensor, epsilon: float | None) -> None:
        for part in chosen.nonzero().squeeze(1).split(batch_size):
            if not len(part):  # the libraries refuse an empty batch
                return
            batch = images[part].to(device, torch.float32), labels[part].to(device)
            candidates = attack(attacked, *batch, epsilon, seed).detach().to(images)
            distance, broken = _verified(
                model, images[part], labels[part], candidates, settings, epsilon
            )
            hit = part[broken]
            adversarial[hit] = candidates[broken]
            found[hit] = distance[broken].double() if epsilon is None else epsilon

    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if settings.attack in MINIMAL_NORM:
            attack_images(correctly, None)
        elif settings.attack in SURVIVORS_ONLY:
            larger = math.inf
            for epsilon in reversed(epsilons):
                smallest = torch.minimum(before, found)
                attack_images((smallest > epsilon) & (smallest <= larger), epsilon)
                larger = epsilon
        else:
            for epsilon in epsilons:
                for _ in range(settings.restarts):
                    attack_images(torch.minimum(before, found) > epsilon, epsilon)
    smallest = torch.minimum(before, found)
    robust = torch.stack([smallest > epsilon for epsilon in epsilons])
    return AttackRecord(epsilons, robust, adversarial, found)


def clean_verdicts(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return which images are classified correctly, bool ``[N]``; none whose logits are not finite.

    Arguments and errors as :func:`clean_logits`.
    """
    return correct(clean_logits(model, images, labels), labels.cpu())


def clean_logits(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the logits ``[N, K]``, once images, labels and network are known to be fit for attacks.

    Args:
        model: as in :func:`run_attack`.
        images: ``[N, *image]`` in [0, 1], of the network's dtype.
        labels: ``[N]``, int64.

    Raises:
        UserError: for images outside [0, 1], in half precision, or of another dtype than the
            network's parameters; for a network that returns probabilities, or as :func:`predict`.
        ValueError: for labels or logits, as :class:`input_hessian.hessian.InputHessian`.
    """
    check_batch(images, labels)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), images.dtype)
    if images.dtype != dtype or dtype not in (torch.float32, torch.float64):
        raise UserError(
            "images: expected the dtype of the network, float32 or float64; "
            f"got {images.dtype} for a network of {dtype}"
        )
    if not ((images >= 0) & (images <= 1)).all():  # also refuses NaN
        raise UserError(
            "images: expected pixels in [0, 1], where the attacks look for adversarial examples, got "
            f"values from {images.min():.6g} to {images.max():.6g}; rescale them, and normalise in "
            "the network"
        )
    logits = predict(model, images)
    labels = labels.cpu()
    check_logits(logits, labels)
    if len(logits) and (logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-5).all():
        raise UserError(
            "model: expected logits, got probabilities, on whose softmax every attack's gradient "
            "vanishes and networks look robust; leave out the softmax at the network's end"
        )
    return logits


def checked_epsilons(epsilons: Sequence[float]) -> list[float]:
    """Return radii as numbers; raise UserError unless they increase from above 0."""
    try:
        radii = [float(epsilon) for epsilon in epsilons]
    except (TypeError, ValueError):
        radii = []
    if not radii or not all(low < high for low, high in itertools.pairwise([0, *radii, math.inf])):
        raise UserError(
            f"epsilons: expected a list of finite, increasing numbers above 0, got {epsilons}"
        )
    return radii


class _InSinglePrecision(nn.Module):
    """A network of another dtype as the attacks see it: AutoAttack's are written for float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.model, self.dtype = model, dtype
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.to(self.dtype)).float()


def _verified(model, images, labels, candidates, settings, epsilon) -> tuple[Tensor, Tensor]:
    """Return distances and which candidates fool the network, after checking ball and pixels."""
    distance = perturbation_norm(images, candidates, settings.norm)
    where = f"{settings.attack} {settings.norm}" + (f" at epsilon {epsilon}" if epsilon else "")
    limit = math.inf if epsilon is None else epsilon + ROUNDING
    if not (distance <= limit).all():  # also refuses NaN
        nan = "; the network's gradient is not finite there" if distance.isnan().any() else ""
        raise AttackError(f"{where} returned a perturbation of {distance.max():.6g}{nan}")
    if candidates.min() < 0 or candidates.max() > 1:
        raise AttackError(
            f"{where} returned pixels in "
            f"[{candidates.min():.6g}, {candidates.max():.6g}], outside [0, 1]"
        )
    return distance, ~correct(predict(model, candidates), labels)
