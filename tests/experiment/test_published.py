"""The table of numbers that others published: complete, sourced, and mistakes in it explained."""

import pytest
from helpers.repository import ROOT

from input_hessian.experiment.published import read_published

PUBLISHED = ROOT / "workflow/resources/published.csv"


def test_published_numbers_are_complete_and_sourced():
    table = read_published(PUBLISHED)
    assert set(table["dataset"]) <= {"digits", "mnist", "fashion_mnist"}
    assert table["source"].str.contains(r"arXiv:\d{4}\.\d{5}|doi:10\.").all()
    assert table["url"].str.startswith("https://").all()
    assert table["note"].str.contains("^checked in the source|^quoted from secondary source").all()
    assert not table.duplicated(["dataset", "defence", "model", "norm", "epsilon", "source"]).any()
    # percent, not fractions
    assert table["clean_accuracy"].dropna().min() > 50
    assert (table["robust_accuracy"] < table["clean_accuracy"].fillna(100)).all()
    unknown = table["clean_accuracy"].isna()
    assert table.loc[unknown, "note"].str.contains("clean accuracy not at hand").all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.1,", ",25.5,", r"line 2: epsilon: expected a number in \[0, 1\]"),
        (",26.0,", ",260,", r"line 2: robust_accuracy: expected a number in \[0, 100\]"),
        (",26.0,", ",,", "line 2: robust_accuracy is empty"),
        (",26.0,", ",low,", "line 2: robust_accuracy: expected a number"),
        (",linf,", ",l1,", "line 2: norm: expected linf or l2, got 'l1'"),
        ("defence", "defense", "expected the columns dataset, defence"),
    ],
)
def test_mistakes_in_published_numbers_are_explained(tmp_path, old, new, message):
    path = tmp_path / "published.csv"
    path.write_text(PUBLISHED.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_published(path)
