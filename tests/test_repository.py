"""What one part of the repository says about another is true."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = PROJECT["dependency-groups"]["pipeline"]


def test_direct_dependencies_are_pinned_exactly():
    for group in PROJECT["dependency-groups"].values():
        assert all(re.fullmatch(r"[a-z0-9-]+(\[[a-z]+\])?==[0-9.]+", pin) for pin in group)


def test_every_package_that_the_library_imports_is_declared():
    """Also what comes along with another one today: `requests` with pooch, say."""
    extra = (
        PROJECT["project"]["dependencies"]
        + PROJECT["project"]["optional-dependencies"]["experiment"]
    )
    declared = {re.match("[a-z0-9-]+", entry)[0] for entry in extra}
    known = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    along = {"pydantic_core", "typing_extensions"}  # parts of pydantic
    nodes = [
        node for path in ROOT.glob("src/**/*.py") for node in ast.walk(ast.parse(path.read_text()))
    ]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {module.partition(".")[0] for module in modules} - along
    packages -= sys.stdlib_module_names | {"input_hessian"}
    assert {known.get(package, package) for package in packages} <= declared


def test_conda_environment_has_the_same_pins():
    environment = yaml.safe_load((ROOT / "envs/pipeline.yaml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == PINS


def test_hashed_requirements_have_the_same_pins():
    text = (ROOT / "envs/requirements.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([0-9a-z.+]+)", text, flags=re.MULTILINE))
    for pin in PINS:
        name, version = re.sub(r"\[.*\]", "", pin).split("==")
        assert locked[name] == version
    assert not re.search(r"^(-i|--index|--extra-index|--find-links)", text, flags=re.MULTILINE)
    blocks = re.findall(r"^[a-z].*(?:\n    .*)*", text, flags=re.MULTILINE)
    assert len(blocks) >= len(locked)  # some stand once per platform
    assert all("--hash=sha256:" in block for block in blocks)


RULES = [
    rule
    for path in (ROOT / "workflow/rules").glob("*.smk")
    for rule in re.split(r"^ *(?:use )?rule[ :]", path.read_text(), flags=re.MULTILINE)[1:]
]


def test_every_rule_has_log_environment_message_and_script():
    assert len(RULES) > 10
    for rule in RULES:
        assert "    log:" in rule
        assert "    message:" in rule  # else a plan lists its files, thousands of them
        inherits = " as " in rule.splitlines()[0]
        assert inherits or "    conda:" in rule
        assert inherits or "    command(" in rule or "    LOOP_COMMAND" in rule


def test_rules_stay_local_or_ask_for_more_with_every_attempt():
    for rule in RULES:
        inherits = " as " in rule.splitlines()[0]
        assert inherits or "    localrule: True" in rule or "        **job(minutes=" in rule


def test_cluster_profiles_keep_the_default_one():
    default, *clusters = (
        yaml.safe_load((ROOT / f"profiles/{name}/profile.yaml").read_text())
        for name in ("default", "slurm", "cluster-generic")
    )
    del default["cores"]
    resources = default.pop("resources")
    for cluster in clusters:
        assert resources.items() <= cluster["resources"].items()
        assert default.items() <= cluster.items()


@pytest.mark.parametrize(
    ("said", "code", "understood"),
    [
        ("job_state = Q", 0, "running"),
        ("job_state = E\n    Exit_status = 0", 0, "running"),
        ("job_state = F\n    Exit_status = 0", 0, "success"),
        ("job_state = F\n    Exit_status = 10", 0, "failed"),
        ("job_state = F\n    Exit_status = -29", 0, "failed"),
        ("job_state = F", 0, "failed"),  # deleted before it started
        ("qstat: Unknown Job Id 7.server", 153, "failed"),
        ("Connection refused\nqstat: cannot connect to server pbs (errno=15010)", 255, "running"),
        ("qstat: PBS is not configured to maintain job history", 1, None),
    ],
)
def test_what_pbs_says_of_a_job(tmp_path, said, code, understood):
    (tmp_path / "said").write_text(f"    {said}\n")
    (tmp_path / "qstat").write_text(
        f'[ "$*" = "-x -f 7.server" ] || exit 99\ncat {tmp_path}/said\nexit {code}\n'
    )
    (tmp_path / "qstat").chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "profiles/cluster-generic/status.sh", "7.server"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (done.stdout.strip() or None) == understood
    assert (done.returncode == 0) == (understood is not None)


def test_captions_exist():
    for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]:
        for caption in re.findall(r'"(?:\.\./|workflow/)(report/\w+\.rst)"', path.read_text()):
            assert (ROOT / "workflow" / caption).read_text().strip()


def test_linked_folders_are_ignored_like_folders(tmp_path):
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name in ("data", "results", "logs", ".snakemake"):
        (tmp_path / name).symlink_to(ROOT)
        subprocess.run(["git", "-C", tmp_path, "check-ignore", "-q", name], check=True)


def test_no_data_model_or_lock_file_is_tracked():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = listed.stdout.splitlines()
    networks = [ROOT / name for name in names if name.startswith("reports/paper/networks/")]
    assert sum(path.stat().st_size for path in networks) < 6e6
    for name in names:
        if ROOT / name not in networks:
            assert not name.endswith((".gz", ".safetensors", ".pt", "uv.lock"))
