import math

import pytest
import torch
from torch import nn

from input_hessian.experiment import evaluation
from input_hessian.experiment.attacks import AttackRecord, AttackSettings
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts

EPSILONS = {"linf": [0.02, 0.05, 0.1], "l2": [0.1, 0.3, 0.6]}
ATTACKS = [
    AttackSettings("apgd-ce", "l2"),
    AttackSettings("fgsm", "linf"),
    AttackSettings("pgd", "linf", steps=10),
    AttackSettings("pgd", "l2", steps=10),
    AttackSettings("apgd-t", "linf"),
]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.Softplus(), nn.Linear(16, 5))
    model.requires_grad_(False).eval()
    images = torch.rand(40, 1, 6, 6)
    labels = model(images).argmax(1)
    labels[:4] = (labels[:4] + 1) % 5
    return model, images, labels


def attacked(network, folder, fingerprint="a", attacks=ATTACKS, **options):
    return list(
        run_attacks(
            *network,
            attacks,
            epsilons=EPSILONS,
            seed=0,
            records=Records(folder, fingerprint),
            **options,
        )
    )


def test_cheap_attacks_first_and_the_others_on_what_those_left(network, tmp_path):
    done = {(s.attack, s.norm): record for s, record in attacked(network, tmp_path)}
    assert list(done) == [
        ("fgsm", "linf"), ("pgd", "linf"), ("pgd", "l2"), ("apgd-ce", "l2"), ("apgd-t", "linf"),
    ]  # fmt: skip
    before = torch.minimum(*(done[a, "linf"].epsilon_found for a in ("fgsm", "pgd")))
    last = done["apgd-t", "linf"]
    assert last.epsilons == EPSILONS["linf"]
    assert 0 < (before > 0.05).sum() < 36
    assert not last.robust[1][before <= 0.05].any()
    # At every radius only what was left there: what it found lies below what others had found.
    assert ((last.epsilon_found < before) | (last.epsilon_found == math.inf) | (before == 0)).all()
    # FGSM and PGD each get every image, so that their verdicts can be compared
    both = (
        done["fgsm", "linf"].epsilon_found.isfinite() & done["pgd", "linf"].epsilon_found.isfinite()
    )
    assert both.sum() > 4


def test_an_attack_may_run_at_the_headline_radii_alone(network, tmp_path):
    attacks = [*ATTACKS[1:3], AttackSettings("apgd-t", "linf", radii="headline")]
    *_, (settings, last) = attacked(network, tmp_path, attacks=attacks, headline={"linf": [0.05]})
    assert (settings.attack, last.epsilons) == ("apgd-t", [0.05])
    everywhere = attacked(network, tmp_path / "all", attacks=[*ATTACKS[1:3], ATTACKS[4]])[-1][1]
    assert torch.equal(last.robust[0], everywhere.robust[1])


def test_what_broke_in_an_earlier_stage_is_not_attacked_again(network, tmp_path):
    broken = torch.full((40,), math.inf, dtype=torch.float64)
    broken[10:40] = 0.1
    ((_, record),) = attacked(
        network, tmp_path, attacks=ATTACKS[:1], broken_at={"l2": broken.clone()}
    )
    assert not record.robust[0, 10:].any()
    assert (record.epsilon_found[10:] == math.inf).all()


def test_a_killed_job_repeats_no_finished_attack(network, tmp_path, monkeypatch):
    attacks = ATTACKS[:3]
    first = attacked(network, tmp_path, attacks=attacks)
    calls = []
    real = evaluation.run_attack

    def spy(model, images, labels, settings, *args, **options):
        calls.append(settings.attack)
        return real(model, images, labels, settings, *args, **options)

    monkeypatch.setattr(evaluation, "run_attack", spy)
    (tmp_path / "apgd-ce_l2.safetensors").write_bytes(b"half a file")
    again = attacked(network, tmp_path, attacks=attacks)
    assert calls == ["apgd-ce"]
    for (_, old), (_, new) in zip(first, again, strict=True):
        assert old.epsilons == new.epsilons
        for name in ("robust", "adversarial", "epsilon_found"):
            assert torch.equal(getattr(old, name), getattr(new, name))
    damaged = bytearray((tmp_path / "fgsm_linf.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "fgsm_linf.safetensors").write_bytes(damaged)
    attacked(network, tmp_path, attacks=attacks)
    assert calls == ["apgd-ce", "fgsm"]
    calls.clear()
    attacked(network, tmp_path, fingerprint="b", attacks=attacks)  # of other settings or code
    assert len(calls) == len(attacks)
    Records(tmp_path, "b").delete()
    assert not tmp_path.exists()


def test_verdicts_have_a_row_per_image_and_radius_from_zero():
    record = AttackRecord(
        [0.1, 0.2],
        torch.tensor([[True, False], [False, False]]),
        torch.zeros(2, 1, 1, 1),
        torch.tensor([0.2, 0.0]),
    )
    table = verdicts(
        AttackSettings("fgsm", "l2"),
        record,
        torch.tensor([True, False]),
        torch.tensor([7, 9]),
        torch.tensor([3, 4]),
    )
    assert set(table["attack"]) == {"fgsm"}
    assert set(table["norm"]) == {"l2"}
    assert table[["index", "label", "epsilon", "robust"]].to_numpy().tolist() == [
        [7, 3, 0.0, True], [9, 4, 0.0, False],
        [7, 3, 0.1, True], [9, 4, 0.1, False],
        [7, 3, 0.2, False], [9, 4, 0.2, False],
    ]  # fmt: skip
