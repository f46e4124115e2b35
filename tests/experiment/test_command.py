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
    for name in ("a b.txt", "m 1", "m2"):
        (tmp_path / name).write_text(name)
    usual = {
        "--data": ["a b.txt"],
        "--models": ["m 1", "m2"],
        "--lam": ["0.5"],
        "--place": ["../here"],
        "--threads": ["2"],
        "--result": [str(tmp_path / "r.json")],
    }

    def call(changes=(), settings="images: 5\nepsilons: {l2: [0.5, 1.0e-05]}\n"):
        words = [w for name, values in (usual | dict(changes)).items() for w in (name, *values)]
        return subprocess.run(
            [sys.executable, script, *words],
            cwd=tmp_path,
            input=settings,
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


@pytest.mark.parametrize("settings", ["", "5", "- 1", "{a: "])
def test_a_script_that_is_called_by_hand_says_what_it_reads(call, settings):
    done = call(settings=settings)
    assert done.returncode == 1
    assert done.stderr.startswith("error: settings: expected ")
    assert "on standard input, got " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_input_is_named(call):
    done = call({"--models": ["m2", "m3"]})
    assert done.returncode == 1
    assert done.stderr == "error: m3: expected a file, found none; run snakemake to make it\n"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
def test_an_output_that_is_damaged_later_is_no_input(call, tmp_path, damage):
    assert call().returncode == 0
    result = tmp_path / "r.json"
    again = {"--models": ["m 1", "r.json"], "--result": ["again.json"]}
    assert call(again).returncode == 0
    content = bytearray(result.read_bytes())
    content[5] ^= 1
    result.write_bytes({"flipped": content, "truncated": content[:9], "emptied": b""}[damage])
    done = call(again)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: r.json: expected the content that was written, of SHA-256"
    )
    assert "delete it and run snakemake again" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    result.unlink()
    assert call().returncode == 0  # the remedy
    assert call(again).returncode == 0


def test_the_checksum_is_that_of_sha256sum(call, tmp_path):
    call()
    command = ["sha256sum", "--check", "--quiet", ".r.json.sha256"]
    assert subprocess.run(command, cwd=tmp_path).returncode == 0


def test_a_failed_script_leaves_no_checksum_of_an_older_file(call, tmp_path):
    call()
    assert call({"--lam": ["-1"]}).returncode == 1
    assert not (tmp_path / ".r.json.sha256").exists()


def test_a_list_may_be_empty(call):
    done = call({"--models": []})
    assert done.returncode == 0, done.stderr
    assert call.result()["models"] == []


def test_a_user_error_is_its_message_alone(call):
    done = call({"--lam": ["-1"]})
    assert done.returncode == 1
    assert done.stderr == "error: lam: expected a number above 0, got -1.0\n"


def test_code_edited_meanwhile_is_no_result(call, tmp_path):
    """The script of the test itself is edited, by the script."""
    script = tmp_path / "a script.py"
    script.write_text(
        SCRIPT.replace("    given =", "    open(__file__, 'a').write('#')\n    given =")
    )
    done = call()
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.endswith("a script.py changed while this ran; run snakemake again\n")
    script.write_text(SCRIPT.replace("    given =", "    os.utime(__file__)\n    given =", 1))
    script.write_text(script.read_text().replace("import json", "import json\nimport os"))
    assert call().returncode == 0  # touched


def test_an_own_plugin_edited_meanwhile_is_no_result(call, tmp_path):
    plugin = tmp_path / "own.py"
    plugin.write_text("x = 1\n")
    load = (
        f"    load_plugin('penalty', {str(plugin)!r})\n    open({str(plugin)!r}, 'a').write('#')\n"
    )
    (tmp_path / "a script.py").write_text(
        SCRIPT.replace(
            "def main", "from input_hessian.experiment.plugins import load_plugin\n\n\ndef main"
        ).replace("    given =", f"{load}    given =")
    )
    assert call().stderr.endswith("own.py changed while this ran; run snakemake again\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "raise OSError(errno.ENOSPC, 'No space left on device', 'x/y')",
            "device: 'x/y'; make room",
        ),
        ("raise PermissionError(errno.EACCES, 'Permission denied', 'x')", "denied: 'x'; make room"),
        (
            "tempfile.tempdir = None; tempfile._candidate_tempdir_list = lambda: ['/dev/null']; "
            "tempfile.mkdtemp()",
            "TMPDIR names the folder",
        ),
    ],
)
def test_a_place_that_cannot_be_written_to_is_one_sentence(call, tmp_path, code, said):
    script = SCRIPT.replace("import json", "import errno\nimport json\nimport tempfile", 1)
    (tmp_path / "a script.py").write_text(script.replace("    given =", f"    {code}\n    given ="))
    done = call()
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"--thread": ["2"]}, "--thread"), ({"--lam": ["much"]}, "--lam"), ({"stray": []}, "stray")],
)
def test_a_wrong_argument_is_named(call, changes, named):
    done = call(changes)
    assert done.returncode == 2
    assert named in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
