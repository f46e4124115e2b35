"""Checks that robustness is not an artefact of gradients that an attack cannot use.

A network can withstand gradient attacks because its loss is flat, or because its gradients are
useless: zero, or pointing nowhere (Athalye et al. 2018).  The symptoms are known (also Carlini et
al. 2019, *On evaluating adversarial robustness*, section 5): a single step beats many, more steps
help, an attack without gradients beats those with, no radius is large enough, gradients vanish.
Each check is a share of images in [0, 1], flagged above half a point (and above a single image)
where nothing else is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.inference import device_of, label_margin
from input_hessian.experiment.tables import broken_at
from input_hessian.hessian import InputHessian

# Any image can be turned into the constant image one half: no network can tell classes apart there.
HUGE_EPSILON = 0.5
PGD_STEPS = 40  # at that radius, where the configuration has no PGD
ORDER = ["single_step", "more_steps", "black_box", "huge_epsilon", "zero_gradients", "pgd_gap"]
ORDER += ["logit_scale", "margin"]


class Check(NamedTuple):
    """One check of one network.

    Attributes:
        check: its name.
        value: share of images, or a number in nats for what is only reported.
        threshold: flagged above it; NaN for what is only reported.
    """

    check: str
    value: float
    threshold: float

    @property
    def flagged(self) -> bool:
        """Whether the value is above the threshold, by more than rounding."""
        return self.value > self.threshold + 1e-9


def check_masking(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    verdicts: pd.DataFrame,
    pgd: Mapping[str, AttackSettings],
    headline: Mapping[str, Sequence[float]],
    *,
    queries: int,
    seed: int,
) -> list[Check]:
    """Run the checks on N images; those that compare attacks only where these attacks ran.

    - ``single_step``: FGSM breaks the image, PGD does not (l-infinity, at the worst radius).
    - ``more_steps``: of what PGD left, PGD with twice the steps breaks more than PGD from the same
      new start (headline radii).
    - ``black_box``: the Square attack, which uses no gradient, breaks what all earlier attacks left
      (at the largest headline radius of each norm).
    - ``huge_epsilon``: PGD leaves the image at l-infinity 1/2.  There every image can be made the
      same, and the best attack leaves at most the largest class: that share is the threshold.
    - ``zero_gradients``: the loss's gradient is exactly zero in float32.
    - ``pgd_gap``: APGD breaks what PGD left.  No sign of masking by itself, but of an evaluation
      that PGD alone would have got wrong; flagged above 10 points.
    - ``logit_scale`` and ``margin``: means of ``max_k |z_k|`` and of ``z_y - max_{k != y} z_k``,
      reported because a penalty on derivatives of the loss can be met by saturating the softmax.

    Args:
        model: network in evaluation mode.
        images: ``[N, *image]`` in [0, 1].
        labels: ``[N]``.
        verdicts: rows ``index, attack, norm, epsilon, robust`` of these images, in order of
            ``index``.
        pgd: the PGD settings behind the verdicts, per norm.
        headline: radii per norm.
        queries: of the Square attack, for each image.
        seed: of the attacks.
    """
    of = {key: rows for key, rows in verdicts.groupby(["attack", "norm"])}

    def smallest(attacks: Iterable[tuple[str, str]]) -> Tensor | None:
        """Return the smallest epsilon at which one of these attacks broke each image, if any ran."""
        rows = [of[attack] for attack in attacks if attack in of]
        if not rows:
            return None
        found = broken_at(pd.concat(rows)).groupby("index").min()
        return torch.from_numpy(found.to_numpy(copy=True))

    def share(broken: Tensor) -> float:
        return broken.double().mean().item()

    def attacked(
        settings: AttackSettings, epsilons: Sequence[float], before: Tensor | None = None
    ) -> Tensor:
        """Return which images of those that were left withstand one more attack, per epsilon."""
        robust = run_attack(
            model, images, labels, settings, epsilons, seed=seed, broken_at=before
        ).robust
        of_each = zip(epsilons, robust.double().mean(1).tolist(), strict=True)
        shown = "  ".join(f"{epsilon:g}: {accuracy:.3f}" for epsilon, accuracy in of_each)
        print(f"masking: {settings.attack} {settings.norm}  {shown}", flush=True)
        return robust

    few = max(0.005, 1 / len(labels))  # half a point, but never a single image
    found: dict[str, list[float]] = {
        name: [] for name in ("single_step", "more_steps", "black_box", "pgd_gap")
    }
    by_fgsm, by_pgd = smallest([("fgsm", "linf")]), smallest([("pgd", "linf")])
    if by_fgsm is not None and by_pgd is not None:
        found["single_step"] = [share((by_fgsm <= e) & (by_pgd > e)) for e in headline["linf"]]
    for norm, epsilons in headline.items():
        by_pgd = smallest([("pgd", norm)])
        if by_pgd is not None:
            once, twice = (
                attacked(AttackSettings("pgd", norm, steps=n * pgd[norm].steps), epsilons, by_pgd)
                for n in (1, 2)
            )
            found["more_steps"] += [share(a) - share(b) for a, b in zip(once, twice, strict=True)]
        by_apgd = smallest([("apgd-ce", norm), ("apgd-t", norm)])
        if by_pgd is not None and by_apgd is not None:
            found["pgd_gap"] += [share((by_pgd > e) & (by_apgd <= e)) for e in epsilons]
        by_any = smallest(key for key in of if key[1] == norm)
        if by_any is not None:
            without_gradients = AttackSettings("square", norm, queries=queries)
            (square,) = attacked(without_gradients, epsilons[-1:], by_any)
            found["black_box"].append(share((by_any > epsilons[-1]) & ~square))

    far = AttackSettings("pgd", "linf", steps=pgd["linf"].steps if "linf" in pgd else PGD_STEPS)
    huge = share(attacked(far, [HUGE_EPSILON])[0])

    device = device_of(model)
    at = InputHessian(model, images.to(device), labels.to(device))
    logits = at.logits.detach()
    zero = share((at.gradient.detach().flatten(1) == 0).all(1))
    thresholds = {"single_step": few, "more_steps": few, "black_box": few, "pgd_gap": 0.1}
    checks = {
        name: Check(name, max(0.0, *values), thresholds[name])
        for name, values in found.items()
        if values
    }
    checks["huge_epsilon"] = Check(
        "huge_epsilon", huge, labels.bincount().max().item() / len(labels)
    )
    checks["zero_gradients"] = Check("zero_gradients", zero, few)
    checks["logit_scale"] = Check("logit_scale", logits.abs().amax(1).mean().item(), math.nan)
    margin = label_margin(logits, labels.to(device)).mean().item()
    checks["margin"] = Check("margin", margin, math.nan)
    return [checks[name] for name in ORDER if name in checks]
