"""The demo, computed once for all tests of this folder."""

import pytest
from helpers.repository import Repository, copy_tree


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """The demo, computed whole by the README's command; tests leave its files as they were."""
    repository = Repository(copy_tree(tmp_path_factory.mktemp("clone")))
    repository.output = repository.snakemake("--cores", "all").stdout
    return repository
