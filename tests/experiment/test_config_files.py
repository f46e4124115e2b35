"""A configuration means what it reads, or is refused."""

import pytest
import yaml
from helpers.repository import ROOT

from input_hessian.experiment.config_files import check, misread, typed
from input_hessian.experiment.errors import UserError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seeds: [1, 010]", "line 1: seeds[1]: YAML reads 010 as 8; write 8, or '010' for a text"),
        ("a:\n  b: 0x1F", "line 2: a.b: YAML reads 0x1F as 31; write 31, or '0x1F' for a text"),
        ("a: 0b11", "line 1: a: YAML reads 0b11 as 3; write 3, or '0b11' for a text"),
        ("a: 1:30", "line 1: a: YAML reads 1:30 as 90; write 90, or '1:30' for a text"),
        ("a: 1:30.5", "line 1: a: YAML reads 1:30.5 as 90.5; write 90.5, or '1:30.5' for a text"),
        ("a: 1_000", "line 1: a: YAML reads 1_000 as 1000; write 1000, or '1_000' for a text"),
        ("a: no", "line 1: a: YAML reads no as false; write false, or 'no' for a text"),
        ("on: 1", "line 1: on: YAML reads on as true; write true, or 'on' for a text"),
        ("a: 1\nb: 2\na: 3", "line 3: a stands in line 1 already; delete one of them"),
        ("a: {b: 1,\n  b: 2}", "line 2: a.b stands in line 1 already; delete one of them"),
        ('{"a": [{"b": 1, "b": 2}]}', "line 1: a[0].b stands in line 1 already; delete one"),
    ],
)
def test_what_yaml_reads_otherwise_is_named_with_its_line(text, line):
    (found,) = misread(text)
    assert found.startswith(line)
    with pytest.raises(UserError, match=r"^mine.yaml, line "):
        check({"right.yaml": "a: 1", "mine.yaml": text})


@pytest.mark.parametrize(
    "text",
    [
        "a: [0, -1, +2, 3.5, .5, 1., 1.0e-05, 1e-3, true, False, null, ~, none, '010', \"no\"]",
        "a: &shared {b: 1}\nc: *shared\nd: {<<: *shared, b: 2}",
        "a: [.inf, .nan]",  # refused as no number
        "",
        "a: [",  # Snakemake says so
    ],
)
def test_what_reads_as_it_is_meant_passes(text):
    assert list(misread(text)) == []


def test_committed_configurations_read_as_they_are_meant():
    check({p: p.read_text() for p in (ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml"))})


def test_lists_and_mappings_of_the_command_line_hold_numbers():
    # What --config makes of seeds=[0,1] training='{epochs: 1, rate: 1e-3}' regularizers='{none: }'.
    given = "{seeds: ['0', '1'], training: {epochs: '1', on: 'true'}, none: {a: ''}, name: 'no'}"
    assert typed(yaml.safe_load(given)) == {
        "seeds": [0, 1],
        "training": {"epochs": 1, True: True},
        "none": {"a": None},
        "name": "no",
    }
    with pytest.raises(UserError, match=r"^--config: seeds\[0\]: YAML reads 010 as 8; write 8"):
        typed({"seeds": ["010"]})
