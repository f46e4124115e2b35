import pytest
import torch
import torch.nn.functional as F
from helpers.networks import ACTIVATIONS, cnn
from torch import nn

from input_hessian.input_gradient import with_cheap_input_gradient


def gradient(model, images, labels):
    images = images.clone().requires_grad_()
    loss = F.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


@pytest.mark.parametrize("activation", ["softplus", "relu"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 8), (1, 8, 8)])
def test_same_logits_and_gradient_as_autograd(shape, activation):
    torch.manual_seed(0)
    model = cnn(shape, 10, 4, ACTIVATIONS[activation]).double().eval()
    model.requires_grad_(False)
    cheap = with_cheap_input_gradient(model)
    assert [type(module) for module in cheap] != [type(module) for module in model]
    images, labels = torch.rand(5, *shape, dtype=torch.float64), torch.arange(5)
    assert torch.equal(cheap(images), model(images))
    expected = gradient(model, images, labels)
    # sums of at most a few thousand products, in another order
    torch.testing.assert_close(gradient(cheap, images, labels), expected, rtol=1e-11, atol=1e-14)


def test_gradients_of_two_batches_do_not_mix():
    """A second forward pass, of another size, between the first and its backward pass."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(), nn.Linear(18, 4))
    cheap = with_cheap_input_gradient(model.requires_grad_(False))
    first, second = (torch.rand(n, 1, 8, 8, requires_grad=True) for n in (3, 5))
    loss = cheap(first).square().sum()
    other = cheap(second).square().sum()
    other.backward()
    loss.backward()
    for images in (first, second):
        again = images.detach().requires_grad_()
        model(again).square().sum().backward()
        torch.testing.assert_close(images.grad, again.grad)


def test_what_is_not_known_stays_as_it_is():
    dilated = nn.Conv2d(2, 2, 3, dilation=2)
    model = nn.Sequential(dilated, nn.Flatten(), nn.Linear(8, 4)).eval()
    cheap = with_cheap_input_gradient(model)
    assert cheap[0] is dilated
    assert not cheap.training
    assert with_cheap_input_gradient(dilated) is dilated
