"""A sequence of attacks on one network: cheap ones first, each kept once it is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from input_hessian.experiment.attacks import (
    SURVIVORS_ONLY,
    AttackRecord,
    AttackSettings,
    clean_verdicts,
    run_attack,
)
from input_hessian.experiment.checksums import checksum_file, record_checksum, verified
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically


class Records:
    """The records of finished attacks of one job, so that a job that was killed repeats none.

    Args:
        folder: where they are kept, one file per attack.
        fingerprint: identifies what they depend on; others are ignored.
    """

    def __init__(self, folder: Path, fingerprint: str):
        self.folder, self.fingerprint = folder, fingerprint

    def get(self, name: str, attack: Callable[[], AttackRecord]) -> AttackRecord:
        """Return the record of that name; ``attack()`` makes it where there is none."""
        path = self.folder / f"{name}.safetensors"
        try:
            with safe_open(verified(path), framework="pt") as file:
                if file.metadata()["fingerprint"] == self.fingerprint:
                    print(f"{path}: finished before", flush=True)
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                    return AttackRecord(epsilons=tensors.pop("epsilons").tolist(), **tensors)
        except (UserError, SafetensorError):
            pass  # none, or a damaged one
        record = attack()
        tensors = {
            "epsilons": torch.tensor(record.epsilons, dtype=torch.float64),
            "robust": record.robust,
            "adversarial": record.adversarial,
            "epsilon_found": record.epsilon_found,
        }
        write_atomically(path, save(tensors, metadata={"fingerprint": self.fingerprint}))
        record_checksum(path)
        return record

    def delete(self) -> None:
        """Delete all records."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink()
            checksum_file(path).unlink(missing_ok=True)
        if self.folder.exists():
            self.folder.rmdir()


def run_attacks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[AttackSettings],
    *,
    epsilons: Mapping[str, Sequence[float]],
    seed: int,
    records: Records,
    headline: Mapping[str, Sequence[float]] | None = None,
    broken_at: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[AttackSettings, AttackRecord]]:
    """Run the attacks, those on survivors alone last and otherwise in the order given.

    An attack on survivors alone (:data:`input_hessian.experiment.attacks.SURVIVORS_ONLY`) gets, at each
    radius, the images that no earlier attack of its norm broke at or below it; every other one gets
    all images.  The verdicts of the latter can be compared with each other, while a survivors'
    attack's ``robust`` is that of the sequence up to it.

    Args:
        model: network in evaluation mode.
        images: ``[N, *image]`` in [0, 1].
        labels: ``[N]``.
        attacks: which, and how strong.
        epsilons: radii, per norm.
        seed: of every attack's random numbers.
        records: where finished attacks are kept.
        headline: per norm the radii of the attacks with ``radii="headline"``; without them, these
            run at all ``epsilons``.
        broken_at: per norm the smallest epsilon ``[N]`` at which attacks before these broke an
            image, infinite where none did.

    Yields:
        An attack and what it did, in the order in which they ran.
    """
    correct = clean_verdicts(model, images, labels)
    none = torch.where(correct, torch.inf, 0.0).double()
    radii_of = {None: epsilons, "headline": headline or epsilons}
    known = {norm: none for norm in epsilons} | dict(broken_at or {})
    for settings in sorted(attacks, key=lambda settings: settings.attack in SURVIVORS_ONLY):
        norm, last = settings.norm, settings.attack in SURVIVORS_ONLY

        def attack(settings=settings, norm=norm, last=last) -> AttackRecord:
            before = known[norm] if last else None
            radii = radii_of[settings.radii][norm]
            return run_attack(model, images, labels, settings, radii, seed=seed, broken_at=before)

        record = records.get(f"{settings.attack}_{norm}", attack)
        known[norm] = torch.minimum(known[norm], record.epsilon_found)
        accuracies = record.robust.double().mean(1).tolist()
        shown = (f"{e:g}: {a:.3f}" for e, a in zip(record.epsilons, accuracies, strict=True))
        print(f"{settings.attack} {norm}  {'  '.join(shown)}", flush=True)
        yield settings, record


def verdicts(
    settings: AttackSettings, record: AttackRecord, correct: Tensor, index: Tensor, labels: Tensor
) -> pd.DataFrame:
    """Return rows ``index, label, attack, norm, epsilon, robust``, one per image and epsilon.

    Args:
        settings: the attack.
        record: what it did to N images.
        correct: bool ``[N]``, the verdict at epsilon 0.
        index: ``[N]``, the images' positions in the official file.
        labels: ``[N]``.
    """
    return pd.concat(
        pd.DataFrame({"index": index, "label": labels, "robust": robust}).assign(
            attack=settings.attack, norm=settings.norm, epsilon=float(epsilon)
        )
        for epsilon, robust in zip([0, *record.epsilons], [correct, *record.robust], strict=True)
    )
