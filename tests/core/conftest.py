import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Networks that a test builds without a seed are the same in every order of the tests."""
    torch.manual_seed(0)
