import torch

# As in every rule. The tensors of these tests are too small for threads to pay, and threads that wait
# for each other are slow beside any other load.
torch.set_num_threads(1)


def pytest_xdist_auto_num_workers(config):
    """One process for the tests that share a whole run of the pipeline, which uses all cores itself."""
    return None if config.option.markexpr.startswith("not slow") else 0
