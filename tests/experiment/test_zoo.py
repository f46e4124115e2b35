"""Released networks load by name; a wrong name is told what there is."""

import pytest
import torch

from input_hessian.experiment import models
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.zoo import load_network, network_names

SETTINGS = {"architecture": "mlp", "width": 4, "activation": "softplus", "beta": 10.0}
SETTINGS |= {"image_shape": [1, 3, 3], "classes": 4}


@pytest.fixture
def folder(tmp_path):
    for seed, name in enumerate(["none", "hessian"]):
        torch.manual_seed(seed)
        network = models.build(**SETTINGS)
        models.save_model(network, SETTINGS, tmp_path / f"mnist.{name}.safetensors")
    return tmp_path


def test_a_network_is_the_one_that_was_released(folder):
    assert network_names(folder) == [("mnist", "hessian"), ("mnist", "none")]
    torch.manual_seed(1)
    trained, images = models.build(**SETTINGS), torch.rand(5, 1, 3, 3)
    network = load_network("mnist", "hessian", folder)
    assert torch.equal(network(images), trained(images))
    assert not network.training


def test_a_wrong_name_is_told_what_there_is(folder, tmp_path):
    with pytest.raises(
        UserError, match=r"one of mnist hessian, mnist none \(did you mean mnist hessian"
    ):
        load_network("mnist", "hesian", folder)
    with pytest.raises(UserError, match=r"there are no networks in .*empty; .* say which folder"):
        load_network("mnist", "hessian", str(tmp_path / "empty"))
