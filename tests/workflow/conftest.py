"""Every penalty, attack and section on small data, computed once for all tests of this folder."""

import pytest
from helpers.repository import Repository, copy_tree


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """All of everything.yaml, computed; tests leave its files as they were."""
    repository = Repository(copy_tree(tmp_path_factory.mktemp("clone")))
    repository.output = repository.snakemake("--cores", "all").stdout
    return repository
