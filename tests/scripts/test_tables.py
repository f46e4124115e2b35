"""What the scripts that make tables and figures decide: which lam, which cost, which interval."""

import json

import collect
import collect_curvature
import compare
import numpy as np
import pandas as pd
import pytest
import summarize
import tabulate_attacks
from helpers import tables

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.statistics import compare_robustness, holm, relative_cost
from input_hessian.experiment.tables import read_table


def selection(rows):
    columns = ["regularizer", "lam", "validation_accuracy", "validation_robust_accuracy"]
    return pd.DataFrame(rows, columns=[*columns, "selected"])


ROWS = [
    ("none", 0.0, 0.99, 0.1, True),
    ("hessian", 1.0, 0.97, 0.6, True),
    ("hessian", 3.0, 0.95, 0.7, False),
    ("gradient", 0.3, 0.972, 0.4, False),
    ("gradient", 1.0, 0.968, 0.5, False),
    ("gradient", 3.0, 0.94, 0.6, True),
    ("taylor", 1.0, 0.975, 0.6, True),
]


def test_lams_meet_at_equal_clean_accuracy_and_where_they_were_selected():
    chosen = {
        (pair["regularizer"], pair["lam"], pair["reference_lam"]): (pair["choice"], pair["matched"])
        for pair in compare.choose(selection(ROWS), "hessian")
    }
    assert chosen == {
        ("none", 0.0, 1.0): ("selected and closest", False),  # two points away
        ("gradient", 0.3, 1.0): ("matched", True),
        ("gradient", 1.0, 1.0): ("matched", True),
        ("gradient", 3.0, 1.0): ("selected", False),  # and no pair: a point from the closest
        ("taylor", 1.0, 1.0): ("selected and matched", True),  # exactly half a point
    }


def test_of_equally_accurate_lams_the_reference_stands_at_its_most_robust():
    rows = [*ROWS, ("hessian", 2.0, 0.967, 0.65, False), ("hessian", 0.1, 0.971, 0.3, False)]
    partners = {
        pair["lam"]: pair["reference_lam"]
        for pair in compare.choose(selection(rows), "hessian")
        if pair["regularizer"] == "gradient" and pair["matched"]
    }
    # 0.972 is matched by 0.97, 0.967 and 0.971, and so is 0.968
    assert partners == {0.3: 2.0, 1.0: 2.0}


def test_diverged_lams_are_not_chosen():
    rows = [*ROWS, ("diverging", 1.0, np.nan, np.nan, True)]
    names = [pair["regularizer"] for pair in compare.choose(selection(rows), "hessian")]
    assert "diverging" not in names
    rows = [
        (row[0], row[1], np.nan, np.nan, row[4]) if row[0] == "hessian" else row for row in rows
    ]
    assert compare.choose(selection(rows), "hessian") == []


@pytest.fixture
def experiment(tmp_path):
    """Cells of three regularizers on 40 images, two seeds, as attack and collect leave them."""
    rng, n = np.random.default_rng(0), 40
    strength = {("none", 0.0): 0.2, ("gradient", 1.0): 0.5, ("hessian", 1.0): 0.7}
    truth, cells, chosen = {}, [], []
    for (name, lam), share in strength.items():
        for seed in (0, 1):
            strong = rng.random(n) < share
            weak = strong | (rng.random(n) < 0.1)
            truth.setdefault(name, []).append(strong)
            verdicts = {("fgsm", "linf"): weak, ("pgd", "linf"): strong, ("pgd", "l2"): weak}
            rows = [
                pd.DataFrame({"index": np.arange(n), "robust": robust}).assign(
                    attack=attack, norm=norm, epsilon=0.1
                )
                for (attack, norm), robust in verdicts.items()
            ]
            folder = tmp_path / f"results/digits/{name}/lam~{lam:g}/seed~{seed}"
            folder.mkdir(parents=True)
            pd.concat(rows).sample(frac=1, random_state=seed).to_parquet(folder / "images.parquet")
            cell = {"dataset": "digits", "regularizer": name, "lam": lam, "seed": seed}
            cells.append(cell | {"status": "finished", "test_accuracy": 0.9 + 0.01 * seed})
        chosen.append(
            {"dataset": "digits", "regularizer": name, "lam": lam, "seeds": 2}
            | {"validation_accuracy": 0.9, "validation_robust_accuracy": share}
            | {"eligible": True, "selected": True}
        )
    pd.DataFrame(cells).to_csv(tmp_path / "cells.csv", index=False)
    pd.DataFrame(chosen).to_csv(tmp_path / "selection.csv", index=False)
    return tmp_path, {name: np.stack(seeds) for name, seeds in truth.items()}


def compared(folder):
    settings = {"grid": {"results": str(folder / "results")}, "reference": "hessian"}
    settings["headline"] = {"digits": {"linf": [0.1], "l2": [0.1]}}
    tables = (read_table(folder / f"{name}.csv") for name in ("selection", "cells"))
    return compare.compare(*tables, settings)


def test_comparison_pairs_images_and_takes_the_worst_attack(experiment):
    folder, truth = experiment
    table = compared(folder)
    assert len(table) == 2 * 2  # norms, other regularizers
    assert list(table["regularizer"][:2]) == ["gradient", "none"]  # the stronger first
    row = table[(table["norm"] == "linf") & (table["regularizer"] == "gradient")].iloc[0]
    expected = compare_robustness(truth["hessian"], truth["gradient"])
    for name in ("difference", "low", "high", "p_value", "only_first", "odds_ratio"):
        assert row[name] == pytest.approx(getattr(expected, name))
    assert row["robust_second"] == pytest.approx(truth["gradient"].mean())
    assert row["clean_first"] == pytest.approx(0.905)
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p_value"]))
    text = compare.to_markdown(table)
    assert "2 seeds" in text
    assert "| l∞ 0.1   | gradient" in text
    assert "McNemar" not in text


def test_both_sides_are_judged_by_the_same_attacks(experiment):
    """The reference's selected lam has met an attack that the others have not."""
    folder, _ = experiment
    before = compared(folder)

    def add_square(cell):
        for seed in (0, 1):
            path = folder / f"results/digits/{cell}/seed~{seed}/images.parquet"
            images = pd.read_parquet(path)
            square = images[images["attack"] == "pgd"].assign(attack="square", robust=False)
            pd.concat([images, square]).to_parquet(path)

    add_square("hessian/lam~1")
    pd.testing.assert_frame_equal(compared(folder), before)
    assert set(before["attacks"]) == {"fgsm pgd", "pgd"}
    add_square("gradient/lam~1")
    row = compared(folder).query("norm == 'linf' and regularizer == 'gradient'").iloc[0]
    assert row["robust_first"] == 0


def test_one_seed_is_said_to_be_one(experiment):
    folder, _ = experiment
    cells = pd.read_csv(folder / "cells.csv", keep_default_na=False)
    cells[cells["seed"] == 0].to_csv(folder / "cells.csv", index=False)
    table = compared(folder)
    assert set(table["test"]) == {"McNemar"}
    assert "1 seed." in compare.to_markdown(table)
    assert "about these networks" in compare.to_markdown(table)


def test_a_norm_without_attacks_is_left_out(experiment):
    folder, _ = experiment
    for path in folder.glob("results/*/*/*/*/images.parquet"):
        pd.read_parquet(path).query("norm == 'linf'").to_parquet(path)
    assert compared(folder)["norm"].tolist() == ["linf", "linf"]


def test_nothing_finished_is_an_empty_table(experiment):
    folder, _ = experiment
    chosen = pd.read_csv(folder / "selection.csv", keep_default_na=False)
    chosen.assign(validation_accuracy=None).to_csv(folder / "selection.csv", index=False)
    table = compared(folder)
    assert list(table.columns) == [*compare.COLUMNS, "p_holm"]
    assert compare.to_markdown(table).startswith("Nothing to compare")


def test_different_images_are_one_clear_error(experiment):
    folder, _ = experiment
    for seed in (0, 1):
        path = folder / f"results/digits/none/lam~0/seed~{seed}/images.parquet"
        pd.read_parquet(path).query("index != 7").to_parquet(path)
    with pytest.raises(UserError, match=r"digits: .*attacked on different images"):
        compared(folder)


def test_only_the_last_column_of_a_norm_names_its_further_attacks():
    trained = tables.cells()
    attacked = pd.concat(
        [
            tables.robustness(trained),
            tables.robustness(trained, ["square"], {"linf": tables.EPSILONS["linf"]}),
        ]
    )
    headline = {"digits": tables.HEADLINE}
    table = tabulate_attacks.tabulate(attacked, tables.selection(trained), headline)
    assert table.groupby(["norm", "attack"]).size().to_dict() == {
        (norm, attack): 3  # regularizers, each at its selected lam and one radius
        for norm in ("linf", "l2")
        for attack in ("fgsm", "pgd", "worst", "ensemble", "square")
        if (norm, attack) != ("l2", "square")
    }
    linf, l2 = sorted(tabulate_attacks.to_markdown(table).split("### ")[1:], reverse=True)
    assert "| FGSM " in linf
    assert "| + Square " in linf
    assert "| worst case " in l2
    assert "Square" not in l2


@pytest.fixture
def cell_files(tmp_path, monkeypatch):
    """A grid of two cells, one of which diverged, and a function that writes a file of each."""
    monkeypatch.chdir(tmp_path)
    grid = {"results": "results", "datasets": {"digits": {"none": ["0"], "hessian": ["1"]}}}

    def write(name, finished, diverged):
        for folder, content in zip(
            cell_folders(grid | {"seeds": [0]}), (finished, diverged), strict=True
        ):
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(content, pd.DataFrame):
                content.to_parquet(folder / name)
            else:
                (folder / name).write_text(content)

    return {"grid": grid | {"seeds": [0]}}, write


PLAIN = {"dataset": "digits", "regularizer": "none", "lam": 0.0, "seed": 0}
DIVERGED = PLAIN | {"regularizer": "hessian", "lam": 1.0}
STATUSES = [(PLAIN, "finished"), (DIVERGED, "diverged")]


def test_cells_are_collected_also_without_a_selection_and_after_divergence(cell_files, tmp_path):
    settings, write = cell_files
    trained = {"settings": {}, "train_seconds": 1.0}
    measured = {"test_accuracy": 0.75, "test_images": 8, "evaluated_with": {}}
    write("training.json", *(json.dumps(c | trained | {"status": s}) for c, s in STATUSES))
    write("evaluation.json", *(json.dumps(c | measured) for c, _ in STATUSES))
    write("curve.csv", "epoch,loss\n1,0.5\n", "epoch,loss\n")
    images = pd.DataFrame({"index": [0, 1, 0, 1], "attack": ["fgsm", "fgsm", "pgd", "pgd"]})
    images = images.assign(norm="l2", epsilon=0.5, robust=[True, False, True, True], **PLAIN)
    write("images.parquet", images, images.head(0))
    checkpoint = tmp_path / "results/digits/none/lam~0/seed~0/checkpoint.pt"
    checkpoint.write_bytes(b"")
    names = {name: tmp_path / f"{name}.csv" for name in ("cells", "robustness", "curves")}
    collect.main([], settings=settings, **names)
    assert not checkpoint.exists()
    cells = read_table(names["cells"])
    assert cells["status"].tolist() == ["finished", "diverged"]
    assert "settings" not in cells
    assert read_table(names["curves"])["regularizer"].tolist() == ["none"]
    robustness = read_table(names["robustness"])
    assert dict(zip(robustness["attack"], robustness["robust_accuracy"], strict=True)) == {
        "fgsm": 0.5,
        "pgd": 1,
        "worst": 0.5,
    }
    # and with attacks on the selected cells, which are kept apart from what all cells met
    more = images.head(2).assign(attack="square", robust=False)
    pd.concat([images, more]).to_parquet(tmp_path / "selected.parquet")
    collect.main([tmp_path / "selected.parquet"], settings=settings, **names)
    robustness = read_table(names["robustness"])
    assert dict(zip(robustness["attack"], robustness["robust_accuracy"], strict=True)) == {
        "ensemble": 0,
        "fgsm": 0.5,
        "pgd": 1,
        "square": 0,
        "worst": 0.5,
    }


def test_curvature_is_compared_with_an_attack_where_that_ran(cell_files, tmp_path):
    settings, write = cell_files
    images, found = tables.image_curvature(PLAIN), tables.perturbations(PLAIN)
    write("curvature.parquet", images, images.head(0))
    table = {}
    for case, perturbations in {"ddn": found, "no ddn": found.head(0)}.items():
        write("perturbations.parquet", perturbations, found.head(0))
        collect_curvature.main(settings=settings, csv=tmp_path / "curvature.csv")
        table[case] = read_table(tmp_path / "curvature.csv")
    assert table["ddn"]["regularizer"].tolist() == ["none"]
    assert table["ddn"]["compared"].tolist() == [11]  # one of twelve is misclassified
    assert "compared" not in table["no ddn"]
    assert table["no ddn"]["hessian_norm_median"].equals(table["ddn"]["hessian_norm_median"])
    write("curvature.parquet", images.head(0), images.head(0))
    collect_curvature.main(settings=settings, csv=tmp_path / "curvature.csv")
    assert read_table(tmp_path / "curvature.csv").empty


def summary_tables(values):
    """Tables of collect for accuracies per lam and seed, the same clean and at linf 0.1."""
    cells, robustness = [], []
    for lam, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            cell = {"dataset": "digits", "regularizer": "hessian", "lam": lam, "seed": seed}
            clean = {"test_accuracy": accuracy, "test_low": 0.3, "test_high": 0.8}
            cells.append(cell | clean | {"status": "finished", "test_images": 400})
            robust = {"robust_accuracy": accuracy, "low": 0.2, "high": 0.9, "n": 50}
            attack = {"attack": "worst", "norm": "linf", "epsilon": 0.1}
            robustness.append(cell | robust | attack)
    return pd.DataFrame(cells), pd.DataFrame(robustness)


def test_summary_states_the_interval_over_seeds():
    cells, robustness = summary_tables({1.0: [0.5, 0.51, 0.52], 3.0: [0.4]})
    summary = summarize.summarize(cells, robustness, {"digits": {"linf": [0.1], "l2": [0.5]}})
    # t(0.975, 2) = 4.3027, standard error 0.01 / sqrt(3)
    row = summary[(summary["lam"] == 1) & (summary["measure"] == "l∞ 0.1")].iloc[0]
    assert row["high"] == pytest.approx(0.51 + 4.3027 * 0.01 / 3**0.5, abs=1e-6)
    assert (row["mean"], row["seeds"]) == (pytest.approx(0.51), 3)
    text = summarize.to_markdown(summary, cells, robustness)
    assert "mean of 3 seeds, in brackets its 95% interval (Student's t)" in text
    assert "51.0 [48.5, 53.5]" in text
    assert "40.0 [30.0, 80.0] (1 of them)" in text  # clean, the Wilson bounds of the table


def test_summary_of_two_seeds_states_their_range():
    cells, robustness = summary_tables({1.0: [0.5, 0.53]})
    summary = summarize.summarize(cells, robustness, {"digits": {"linf": [0.1], "l2": [0.5]}})
    text = summarize.to_markdown(summary, cells, robustness)
    assert "mean of 2 seeds, in brackets the lower and the higher one" in text
    assert "51.5 [50.0, 53.0]" in text


def test_summary_of_one_seed_states_the_interval_of_its_images():
    cells, robustness = summary_tables({1.0: [0.5]})
    summary = summarize.summarize(cells, robustness, {"digits": {"linf": [0.1], "l2": [0.5]}})
    text = summarize.to_markdown(summary, cells, robustness)
    assert "one seed, in brackets the 95% Wilson interval of the images" in text
    assert "50.0 [20.0, 90.0]" in text
    assert "of them" not in text


def test_cost_is_the_ratio_within_a_round():
    rows = [  # the machine is ten times slower in the second round
        ("digits", "none", 0, 1.0),
        ("digits", "hessian", 0, 4.0),
        ("digits", "none", 1, 10.0),
        ("digits", "hessian", 1, 40.0),
        ("digits", "none", 2, 1.0),
        ("digits", "hessian", 2, 5.0),
    ]
    columns = ["dataset", "regularizer", "round", "milliseconds"]
    cost = relative_cost(pd.DataFrame(rows, columns=columns))
    assert cost.loc[("digits", "hessian")].tolist() == [4, 4, 4.5]
    assert cost.loc[("digits", "none")].tolist() == [1, 1, 1]
