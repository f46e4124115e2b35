"""The command line of a script is the signature of its function."""

import json
import subprocess
import sys

import pytest

SCRIPT = '''"""Add what it is given."""

import json

from input_hessian.experiment.command import Input, Output, Settings, Untracked, run
from input_hessian.experiment.errors import UserError


def main(
    data: Input,
    models: list[Input],
    *,
    settings: Settings,
    lam: float,
    place: Untracked,
    threads: int,
    result: Output,
) -> None:
    if lam < 0:
        raise UserError(f"lam: expected a number above 0, got {lam}")
    given = {"data": data.name, "models": [m.name for m in models], "settings": settings}
    result.write_text(json.dumps(given | {"lam": lam, "place": place, "threads": threads}))


if __name__ == "__main__":
    run(main)
'''


@pytest.fixture
def call(tmp_path):
    """Call the script with these arguments, some of them changed."""
    script = tmp_path / "a script.py"
    script.write_text(SCRIPT)
    usual = {
        "--data": ["a b.txt"],
        "--models": ["m 1", "m2"],
        "--lam": ["0.5"],
        "--place": ["../here"],
        "--threads": ["2"],
        "--result": [str(tmp_path / "r.json")],
    }

    def call(changes=()):
        words = [w for name, values in (usual | dict(changes)).items() for w in (name, *values)]
        return subprocess.run(
            [sys.executable, script, *words],
            input="images: 5\nepsilons: {l2: [0.5, 1.0e-05]}\n",
            capture_output=True,
            text=True,
        )

    call.result = lambda: json.loads((tmp_path / "r.json").read_text())
    return call


def test_every_parameter_arrives_in_its_type(call):
    done = call()
    assert done.returncode == 0, done.stderr
    assert call.result() == {
        "data": "a b.txt",
        "models": ["m 1", "m2"],
        "settings": {"images": 5, "epsilons": {"l2": [0.5, 1e-05]}},
        "lam": 0.5,
        "place": "../here",
        "threads": 2,
    }


def test_a_list_may_be_empty(call):
    done = call({"--models": []})
    assert done.returncode == 0, done.stderr
    assert call.result()["models"] == []


def test_a_user_error_is_its_message_alone(call):
    done = call({"--lam": ["-1"]})
    assert done.returncode == 1
    assert done.stderr == "error: lam: expected a number above 0, got -1.0\n"


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"--thread": ["2"]}, "--thread"), ({"--lam": ["much"]}, "--lam"), ({"stray": []}, "stray")],
)
def test_a_wrong_argument_is_named(call, changes, named):
    done = call(changes)
    assert done.returncode == 2
    assert named in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
