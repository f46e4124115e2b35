"""The comparison at a limited loss of clean accuracy: a small experiment whose numbers follow by hand.

``strong`` and ``weak`` networks withstand the first so many of 100 images, in steps of two per seed.
"""

import itertools
import json

import compare
import judge_claims
import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers.repository import ROOT
from IPython.display import Markdown

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.results import select
from input_hessian.experiment.statistics import contrast, holm
from input_hessian.experiment.tables import CELL, read_table

N = 100
RADII = (0.1, 0.2)
NORMS = ("linf", "l2")
# lam: clean validation error, robust validation accuracy under linf and under l2, and how many test
# images withstand all linf and all l2 attacks at the smaller radius; at the larger one it is half.
CURVES = {
    "none": {0.0: (0.02, 0.1, 0.1, 10, 10)},
    # linf: the point between both lam; l2: the curve has turned, and it is the first.
    "hessian": {1.0: (0.03, 0.5, 0.5, 50, 40), 3.0: (0.05, 0.7, 0.3, 70, 20)},
    # Both lam cost too much: a quarter of the way from plain training to the first.
    "gradient": {1.0: (0.10, 0.5, 0.5, 50, 30), 3.0: (0.20, 0.6, 0.6, 90, 90)},
    "cure": {1.0: (0.04, 0.8, 0.1, 90, 10)},
}
SETTINGS = {
    "reference": "hessian",
    "families": {
        "gradient penalty": ["gradient"],
        "others": ["cure"],
    },
}


def counts(name: str, lam: float, seed: int, norm: str) -> tuple[int, int]:
    """Return how many images withstand every attack at the two radii."""
    weak = CURVES[name][lam][3 + NORMS.index(norm)] + 2 * seed
    return weak, weak // 2


class Experiment:
    """What training, validation and attacks leave, and the comparison made of it."""

    def __init__(self, folder, datasets=("mnist",), seeds=(0, 1), diverged=(), only=None):
        self.folder, self.datasets, rows = folder, datasets, []
        for dataset, name, seed in itertools.product(datasets, CURVES, seeds):
            if only and name in only and dataset != only[name]:
                continue
            for lam, (error, linf, l2, *_) in CURVES[name].items():
                cell = {"dataset": dataset, "regularizer": name, "lam": lam, "seed": seed}
                finished = (name, lam, seed) not in diverged
                rows.append(
                    cell
                    | {"status": "finished" if finished else "diverged"}
                    | {"validation_accuracy": 1 - error if finished else None}
                    | {"validation_linf": linf, "validation_l2": l2}
                    | {"validation_robust_accuracy": (linf + l2) / 2, "test_accuracy": 0.99 - error}
                    | {"test_low": 0.9, "constant_accuracy": 0.1}
                )
                self.attack(cell, finished)
        self.cells = pd.DataFrame(rows)
        self.select()

    def select(self):
        self.cells.to_csv(self.folder / "cells.csv", index=False)
        table = select(self.cells, dict.fromkeys(self.datasets, 2.0))
        table.to_csv(self.folder / "selection.csv", index=False)

    def cell(self, cell):
        return self.folder / "{dataset}/{regularizer}/lam~{lam:g}/seed~{seed}".format(**cell)

    def attack(self, cell, finished=True, images=range(N), norms=NORMS):
        """PGD leaves the images below a number, FGSM breaks the very first, at the smaller radius."""
        index, tables = np.array(images), []
        for norm in norms:
            more, fewer = counts(*(cell[key] for key in CELL[1:]), norm)
            found = {("pgd", 0.0): index < 95, ("fgsm", 0.0): index < 95}
            found |= {("pgd", RADII[0]): index < more, ("pgd", RADII[1]): index < fewer}
            found |= {("fgsm", RADII[0]): index > 0, ("fgsm", RADII[1]): index >= 0}
            for (attack, epsilon), robust in found.items():
                at = {"attack": attack, "norm": norm, "epsilon": epsilon}
                tables.append(pd.DataFrame({"index": index, "robust": robust} | at))
        table = pd.concat(tables)[: None if finished else 0]
        distance = (np.arange(N) + 1) / N + 2 * (cell["lam"] > 0)
        sizes = pd.DataFrame({"index": np.arange(N), "attack": "ddn", "distance": distance})
        self.cell(cell).mkdir(parents=True, exist_ok=True)
        # The order of the rows says nothing.
        table.sample(frac=1, random_state=cell["seed"]).to_parquet(
            self.cell(cell) / "images.parquet"
        )
        sizes[: None if finished else 0].to_parquet(self.cell(cell) / "perturbations.parquet")

    def compare(self, masking=()):
        """Return the tables as others read them, and the Markdown."""
        names = ["matched.csv", "comparison.csv", "comparison.md"]
        matched, csv, markdown = (self.folder / name for name in names)
        per_dataset = {
            "grid": {"results": str(self.folder)},
            "epsilons": {name: {norm: list(RADII) for norm in NORMS} for name in self.datasets},
            "max_clean_loss": dict.fromkeys(self.datasets, 2.0),
        }
        compare.main(
            selection=self.folder / "selection.csv",
            cells=self.folder / "cells.csv",
            masking=list(masking),
            images=[],
            perturbations=[],
            settings=SETTINGS | per_dataset,
            matched=matched,
            csv=csv,
            sensitivity=self.folder / "sensitivity.csv",
            markdown=markdown,
            latex=self.folder / "comparison.tex",
        )
        return read_table(matched), read_table(csv), markdown.read_text()


def points(matched):
    """Return lam_low, lam_high and weight by norm and regularizer."""
    rows = matched.drop_duplicates(["dataset", "norm", "regularizer"])
    return {
        (row.norm, row.regularizer): (
            row.lam_low,
            row.lam_high,
            pytest.approx(row.weight, abs=1e-3),
        )
        for row in rows.itertuples()
    }


POINTS = {
    ("linf", "none"): (0, 0, 0),
    ("l2", "none"): (0, 0, 0),
    ("linf", "hessian"): (1, 3, 0.5),  # errors 0.03 and 0.05, and 0.04 are allowed
    ("l2", "hessian"): (1, 1, 0),
    ("linf", "gradient"): (0, 1, 0.25),  # errors 0.02 and 0.10
    ("l2", "gradient"): (0, 1, 0.25),
    ("linf", "cure"): (1, 1, 0),  # exactly what is allowed
    ("l2", "cure"): (0, 0, 0),  # no more robust than plain training, which costs nothing
}


def test_each_regularizer_is_measured_where_validation_images_put_it(tmp_path):
    matched, _, markdown = Experiment(tmp_path).compare()
    assert points(matched) == POINTS
    assert len(matched) == len(POINTS) * len(RADII)
    hessian = matched[(matched["norm"] == "linf") & (matched["regularizer"] == "hessian")].iloc[0]
    assert hessian["validation_error"] == pytest.approx(0.04, abs=1e-5)
    assert hessian["clean_error"] == pytest.approx(0.05, abs=1e-5)  # (0.04 + 0.06) / 2
    assert hessian["attacked_error"] == pytest.approx(0.05)
    # 50 and 52, 70 and 72 images of 100; FGSM breaks one more, at the larger radius as well
    robust = matched.set_index(["norm", "regularizer", "epsilon"])["robust"]
    assert robust["linf", "hessian", 0.1] == pytest.approx(0.60, abs=1e-4)
    assert robust["linf", "hessian", 0.2] == pytest.approx((25.5 + 35.5) / 200 - 0.01, abs=1e-4)
    assert robust["l2", "gradient", 0.1] == pytest.approx(0.75 * 0.10 + 0.25 * 0.30, abs=1e-4)
    # two thirds of plain training's distances, of which each weighs 3/4, make half of all
    found = matched.set_index(["norm", "regularizer"])["median_perturbation"]
    assert found["l2", "gradient"].tolist() == pytest.approx([0.67] * 2)
    assert found["l2", "hessian"].tolist() == pytest.approx([2.5] * 2)
    assert found["linf"].isna().all()
    assert "### MNIST, l∞: at most 2 points" in markdown
    assert "| 1 (50%), 3 (50%) " in markdown
    assert "| 60.0 [" in markdown


def truth(name, norm):
    """Share ``[seeds, images]`` of the radii at which the point of a regularizer withstands."""
    low, high, weight = POINTS[norm, name]
    index = np.arange(N)

    def withstood(lam):
        return np.array(
            [
                np.mean(
                    [
                        (index < k) & (index > 0)
                        for k in counts(name if lam else "none", lam, s, norm)
                    ],
                    0,
                )
                for s in (0, 1)
            ]
        )

    return (1 - weight) * withstood(low) + weight * withstood(high)


def test_differences_are_tested_within_their_families(tmp_path):
    _, compared, markdown = Experiment(tmp_path).compare()
    compared = compared.set_index(["norm", "regularizer"])
    assert compared.index.tolist() == [
        *[("linf", "gradient"), ("l2", "gradient"), ("linf", "cure"), ("l2", "cure")],
        *[("linf", "none"), ("l2", "none")],
    ]
    assert compared["family"].fillna("").tolist() == [
        *("gradient penalty", "gradient penalty", "others", "others", "", ""),
    ]
    for (norm, name), row in compared.iterrows():
        found = contrast(truth("hessian", norm), truth(name, norm))
        for measure in ("low", "high"):
            assert row[measure] == pytest.approx(getattr(found, measure), abs=1e-4)
        level = 0.05 / (2 if row["family"] in SETTINGS["families"] else 1)
        strict = contrast(truth("hessian", norm), truth(name, norm), confidence=1 - level)
        assert row["detectable"] == pytest.approx(strict.detectable, abs=1e-4)
        assert (row["reference"], row["epsilons"]) == ("hessian", "[0.1, 0.2]")
        assert (row["images"], row["seeds"]) == (N, 2)
    # by hand: 60% and 29.5%, of gradient 75% of (10, 4.5) and 25% of (50, 24.5)
    difference = compared["difference"]
    assert difference["linf", "gradient"] == pytest.approx(0.4475 - 0.147, abs=1e-3)
    assert difference["l2", "none"] == pytest.approx(0.2975 - 0.0725, abs=1e-4)
    p = {key: contrast(truth("hessian", key[0]), truth(key[1], key[0])).p_value for key in POINTS}
    for name, family in (("gradient", compared[:2]), ("cure", compared[2:4])):
        smaller, larger = sorted([p["linf", name], p["l2", name]])
        assert sorted(family["p_holm"]) == pytest.approx(
            [2 * smaller, max(2 * smaller, larger)], rel=1e-2
        )
    untested = compared.iloc[4:]
    assert untested[["p_value", "p_holm"]].isna().all(axis=None)
    assert compared["conclusion"].tolist() == [
        *("more robust", "more robust", "less robust", "more robust"),
        *["not tested"] * 2,
    ]
    assert (
        "| MNIST     | l∞ 0.1, 0.2 | 2       | hessian minus gradient | +0.0    | +30.0 ["
        in markdown
    )
    assert "on 100 test images; 95% interval over images and seeds, not adjusted." in markdown


def test_a_family_is_represented_by_its_most_robust_member_on_validation_images(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(SETTINGS, "families", {"rivals": ["gradient", "cure"]})
    matched, compared, _ = Experiment(tmp_path).compare()
    best = matched.drop_duplicates(["norm", "regularizer"]).set_index(["norm", "regularizer"])
    robust = best["validation_robust"]
    assert robust["linf", "cure"] > robust["linf", "gradient"]
    assert robust["l2", "cure"] < robust["l2", "gradient"]
    tested = compared[compared["family"] == "rivals"]
    assert tested[["norm", "regularizer"]].to_numpy().tolist() == [
        ["linf", "cure"],
        ["l2", "gradient"],
    ]


def test_a_contrast_names_the_flagged_networks_that_it_uses(tmp_path):
    masking = pd.DataFrame(
        [
            ("mnist", "hessian", 3.0, "pgd_gap", True),
            ("mnist", "hessian", 3.0, "black_box", True),
            ("mnist", "hessian", 1.0, "pgd_gap", False),
            ("mnist", "none", 0.0, "single_step", True),
        ],
        columns=["dataset", "regularizer", "lam", "check", "flagged"],
    )
    masking.to_csv(tmp_path / "masking.csv", index=False)
    _, compared, markdown = Experiment(tmp_path).compare([tmp_path / "masking.csv"])
    flagged = compared.set_index(["norm", "regularizer"])["flagged"]
    # gradient lies between plain training and its first lam, hessian at lam 1 alone under l2
    assert flagged["linf", "gradient"] == "hessian 3: black_box, pgd_gap; none 0: single_step"
    assert flagged["l2", "gradient"] == "none 0: single_step"
    assert "hessian 3: black_box, pgd_gap" in markdown


def test_contrasts_at_other_limits_are_shown_and_not_tested(tmp_path, monkeypatch):
    _, _, markdown = Experiment(tmp_path).compare()
    others = read_table(tmp_path / "sensitivity.csv")
    assert set(others["clean_loss"]) == {1.0, 4.0}
    assert set(others["conclusion"]) == {"not tested"}
    assert others[["p_value", "p_holm"]].isna().all(axis=None)
    tested, others = markdown.split("The contrasts of the families at half and at twice the limit")
    assert "| p (Holm) " in tested
    assert "| p (Holm) " not in others
    monkeypatch.setattr(compare, "OTHER_LIMITS", (1,))
    _, compared, _ = Experiment(tmp_path).compare()
    same = read_table(tmp_path / "sensitivity.csv")
    tested = compared[compared["family"].notna()].reset_index(drop=True)
    columns = ["norm", "regularizer", "clean_difference", "difference", "low", "high", "detectable"]
    pd.testing.assert_frame_equal(same[columns], tested[columns])


def test_the_claim_is_judged_by_its_family_alone(tmp_path):
    _, compared, _ = Experiment(tmp_path).compare()
    verdict, evidence = judge_claims.more_robust(compared, ["gradient"], 2)
    assert verdict == "holds"
    assert "more robust in 2 of 2 contrasts" in evidence
    verdict, evidence = judge_claims.more_robust(compared, ["cure"], 2)
    assert verdict == "does not hold"
    assert "more robust in 1 of 2 contrasts, less robust in 1" in evidence


@pytest.mark.parametrize(
    ("difference", "p_value", "words"),
    [
        (0.1, 0.049, "more robust"),
        (-0.1, 0.049, "less robust"),
        (0.1, 0.05, "no difference shown"),
        (-0.1, 0.8, "no difference shown"),
        (-0.1, np.nan, "not tested"),
    ],
)
def test_words_follow_from_the_adjusted_p_value(difference, p_value, words):
    assert compare.conclusion(difference, p_value) == words


def test_equal_networks_show_no_difference(tmp_path, monkeypatch):
    monkeypatch.setitem(CURVES, "gradient", CURVES["hessian"])
    _, compared, markdown = Experiment(tmp_path).compare()
    tested = compared[compared["family"] == "gradient penalty"]
    assert tested["difference"].tolist() == [0, 0]
    assert set(tested["conclusion"]) == {"no difference shown"}
    assert (tested["detectable"] > 0.01).all()
    verdict, evidence = judge_claims.more_robust(compared, ["gradient"], 2)
    assert verdict == "not shown"
    assert "would have been found with a probability of 80%" in evidence
    assert "no difference shown" in markdown


def test_test_images_choose_no_point(tmp_path):
    experiment = Experiment(tmp_path)
    before, *_ = experiment.compare()
    for path in tmp_path.glob("*/*/*/*/images.parquet"):
        images = pd.read_parquet(path)
        better = "gradient" in path.parts
        images.assign(robust=better).to_parquet(path)
    cells = read_table(tmp_path / "cells.csv")
    cells.assign(test_accuracy=cells["lam"] / 10).to_csv(tmp_path / "cells.csv", index=False)
    after, *_ = experiment.compare()
    pd.testing.assert_frame_equal(after[compare.POINT], before[compare.POINT])
    assert not after["robust"].equals(before["robust"])


def test_a_lam_of_which_a_seed_diverged_is_no_point_of_the_curve(tmp_path):
    matched, *_ = Experiment(tmp_path, diverged=[("hessian", 3.0, 1)]).compare()
    assert points(matched) == POINTS | {("linf", "hessian"): (1, 1, 0)}
    folder = tmp_path / "all"
    folder.mkdir()
    diverged = [("hessian", lam, 0) for lam in (1.0, 3.0)]
    matched, compared, markdown = Experiment(folder, diverged=diverged).compare()
    # plain training is a point of its curve too, but the regularizer is not there
    assert set(matched["regularizer"]) == set(CURVES) - {"hessian"}
    assert compared.empty
    assert list(compared) == compare.COMPARED
    assert "### MNIST, l2" in markdown
    assert judge_claims.more_robust(compared, ["gradient"], 2)[0] == "not tested"


@pytest.mark.parametrize("seed", [0, 1])
def test_without_plain_training_nothing_is_compared(tmp_path, seed):
    matched, compared, markdown = Experiment(tmp_path, diverged=[("none", 0.0, seed)]).compare()
    assert matched.empty
    assert list(matched) == compare.MATCHED
    assert compared.empty
    assert markdown.startswith("Nothing can be compared")


def test_a_regularizer_is_compared_where_it_was_trained(tmp_path):
    datasets = ("mnist", "digits")
    experiment = Experiment(tmp_path, datasets, only={"gradient": "digits", "cure": "mnist"})
    matched, compared, _ = experiment.compare()
    both = set(matched.groupby("regularizer")["dataset"].unique().map(frozenset).items())
    assert ("gradient", frozenset({"digits"})) in both
    assert ("hessian", frozenset(datasets)) in both
    families = compared.dropna(subset=["family"])
    assert families[["family", "dataset", "norm"]].to_numpy().tolist() == [
        ["gradient penalty", "digits", "linf"],
        ["gradient penalty", "digits", "l2"],
        ["others", "mnist", "linf"],
        ["others", "mnist", "l2"],
    ]
    p = families["p_value"].iloc[:2]
    assert families["p_holm"].iloc[:2].min() == pytest.approx(2 * p.min())  # two, not four


def test_one_seed_is_said_to_be_one(tmp_path):
    matched, compared, markdown = Experiment(tmp_path, seeds=(0,)).compare()
    assert points(matched) == POINTS
    assert set(compared["seeds"]) == {1}
    found = contrast(truth("hessian", "l2")[:1], truth("gradient", "l2")[:1])
    row = compared[(compared["norm"] == "l2") & (compared["regularizer"] == "gradient")].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((found.low, found.high), abs=1e-4)
    assert "interval over images; with one seed, it speaks about these networks" in markdown


@pytest.mark.parametrize("seeds", [(0, 1), (1,)])
def test_different_images_are_one_clear_error(tmp_path, seeds):
    experiment = Experiment(tmp_path)
    for seed in seeds:
        cell = {"dataset": "mnist", "regularizer": "gradient", "lam": 1.0, "seed": seed}
        experiment.attack(cell, images=[*range(7), *range(8, N)])
    with pytest.raises(UserError, match=r"mnist: .*attacked on different images"):
        experiment.compare()


def test_a_norm_without_attacks_is_left_out(tmp_path):
    experiment = Experiment(tmp_path)
    for cell in experiment.cells[CELL].to_dict("records"):
        experiment.attack(cell, norms=["linf"])
    matched, compared, _ = experiment.compare()
    assert set(matched["norm"]) == set(compared["norm"]) == {"linf"}


def test_the_notebook_computes_every_contrast_again(tmp_path):
    experiment = Experiment(tmp_path)
    _, compared, _ = experiment.compare()
    notebook = nbformat.read(ROOT / "workflow/notebooks/results.ipynb", nbformat.NO_CONVERT)
    (cell,) = [cell for cell in notebook.cells if cell.id == "c3-again"]
    assert cell.metadata.tags == ["needs-comparison"]
    known = {
        "json": json,
        "np": np,
        "pd": pd,
        "contrast": contrast,
        "holm": holm,
        "read_table": read_table,
    }
    known |= {"Markdown": Markdown, "TABLES": tmp_path, "GROUP": CELL[:3]}
    known |= {"folder": lambda row: experiment.cell(row._asdict())}
    known |= {"finished": read_table(tmp_path / "cells.csv")}
    exec(cell.source, known | {"comparison": compared})
    alone = compared[compared["family"] == "others"].reset_index(drop=True)
    for column in ("difference", "low", "high", "p_value", "detectable", "p_holm"):
        other = alone.copy()
        other[column] += 1e-5
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            exec(cell.source, known | {"comparison": other})


def test_a_network_from_elsewhere_is_on_no_curve(tmp_path):
    selection = read_table(Experiment(tmp_path).folder / "selection.csv")
    mine = selection[selection["regularizer"] == "none"].assign(regularizer="mine")
    mine = mine.assign(validation_linf=0.99, validation_l2=0.99)
    pd.testing.assert_frame_equal(
        compare.choose(pd.concat([selection, mine]), {"mnist": 2.0}),
        compare.choose(selection, {"mnist": 2.0}),
    )
