"""What has no input Hessian, or only the shape of one, is refused instead of answered."""

import pytest
import torch
from helpers.networks import batch_of, network, seeded
from torch import nn

from input_hessian import InputHessian, LayerwiseHessian, derivatives
from input_hessian.estimators import ascent, lanczos, power

KINDS = [InputHessian, LayerwiseHessian]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["matvec", "pullback"])
def test_vectors_of_another_shape_are_not_broadcast(kind, method):
    images, labels = batch_of(4)
    hessian = kind(network(), images, labels)
    right = images if method == "matvec" else hessian.logits
    ask = getattr(hessian, method)
    ask(right.cos())
    for wrong in (right[:1], right[0], right[..., :1]):
        with pytest.raises(ValueError, match=r"(vector|cotangents): expected shape \(4, "):
            ask(wrong.cos())


class Centred(nn.Module):
    """A network that takes the mean over the batch off its input, by any other name."""

    def __init__(self, model, dims):
        super().__init__()
        self.model, self.dims = model, dims

    def forward(self, images):
        return self.model(images - images.mean(self.dims, keepdim=True))


def test_a_network_that_couples_the_images_of_a_batch_is_refused():
    images, labels = batch_of(4)
    with pytest.raises(ValueError, match=r"Centred: .* change by .* statistics over the batch"):
        derivatives(Centred(network(), 0), images, labels)
    of_each = tuple(range(1, images.ndim))
    centred = derivatives(Centred(network(), of_each), images, labels)
    alone = derivatives(Centred(network(), of_each), images[:1], labels[:1])
    assert torch.allclose(centred.gradient[:1], alone.gradient)


def test_independence_is_tried_once_and_draws_no_random_number():
    images, labels = batch_of(4)
    model, calls = Centred(network(), tuple(range(1, images.ndim))), []
    model.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    InputHessian(model, images, labels)
    tried = len(calls)
    InputHessian(model, images, labels)
    assert len(calls) - tried < tried
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_that_draws_random_numbers_is_not_taken_for_a_coupled_one():
    images, labels = batch_of(4)
    model = nn.Sequential(nn.Dropout(0.5), network()).train()
    InputHessian(model, images, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_of_a_few_rounding_errors_are_refused(dtype):
    images, labels = batch_of(4)
    hessian = InputHessian(network().to(dtype), images.to(dtype), labels)
    eps = torch.finfo(dtype).eps
    for step in (0.0, eps, 90 * eps, float("nan")):
        with pytest.raises(ValueError, match="difference_step: expected at least"):
            hessian.difference(step)
    vector = torch.nn.functional.normalize(hessian.gradient.detach().flatten(1)).view_as(images)
    near = hessian.difference(eps**0.5)(vector.to(dtype))
    assert torch.allclose(near, hessian.matvec(vector.to(dtype)), atol=0.02, rtol=0.05)


@pytest.mark.parametrize("estimator", [power, lanczos, ascent])
def test_a_training_step_has_a_fixed_budget(estimator):
    hessian = InputHessian(network(), *batch_of(4))
    start = torch.randn(hessian.gradient.shape, generator=seeded(0), dtype=torch.float64)
    options = {"step_size": 1.0} if estimator is ascent else {}
    with pytest.raises(ValueError, match="tolerance: not with create_graph"):
        estimator(hessian.matvec, start, hvps=3, tolerance=0.1, create_graph=True, **options)
