"""Operator norms and eigenvalues, against true eigenvalues and in the hard cases."""

import math

import pytest
import torch
from helpers.networks import CLASSES, batch_of, network, seeded
from helpers.oracles import (
    EPS,
    SymmetricMaps,
    assert_slopes_agree,
    diagonal_map,
    explicit_hessians,
    random_maps,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from input_hessian import InputHessian, LayerwiseHessian, derivatives, operator_norm
from input_hessian.estimators import (
    METHODS,
    ascent,
    lanczos,
    largest_eigenvalue,
    power,
    softmax_eigenvector,
)
from input_hessian.vectors import normalize, vector_norm


def estimate(method, matvec, start, **options):
    if method == "ascent":
        options.setdefault("step_size", 1.0)
    return METHODS[method](matvec, start, **options)


@pytest.mark.parametrize("method", METHODS)
def test_estimators_converge_to_the_operator_norm(method):
    matvec, start = random_maps(0, 6, 12)
    budget = {"power": 3000, "lanczos": 13, "ascent": 3001}[method]
    result = estimate(method, matvec, start, hvps=budget)
    assert torch.allclose(result.norm, matvec.norm, rtol=1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_operator_norm_of_networks(method, architecture):
    model = network(architecture)
    images, labels = batch_of(4)
    hessian = InputHessian(model, images, labels)
    options = {"power": {"hvps": 400}, "lanczos": {"hvps": 17}}
    options["ascent"] = {"hvps": 401, "step_size": 1e4}
    result = operator_norm(hessian, method=method, start="gradient", **options[method])
    expected = torch.linalg.eigvalsh(explicit_hessians(model, images, labels)).abs().amax(1)
    assert torch.allclose(result.norm, expected, rtol=1e-6)


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 8),
    exponent=st.integers(-40, 30),
    budget=st.integers(1, 12),
    method=st.sampled_from(sorted(METHODS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_budget_gives_a_lower_bound_and_a_witness(
    seed, size, exponent, budget, method, dtype
):
    matvec, start = random_maps(seed, 3, size, dtype)
    matvec.matrices *= 10.0 ** min(exponent, 15)
    result = estimate(method, matvec, start, hvps=budget)
    rounding = 20 * size * EPS[dtype]
    exact = SymmetricMaps(matvec.matrices.double())
    smallest = torch.finfo(dtype).tiny  # below it, numbers lose their digits
    assert result.norm.isfinite().all()
    assert (result.norm <= exact.norm * (1 + rounding) + smallest).all()
    assert torch.allclose(
        vector_norm(result.vector).double(), torch.ones(3).double(), rtol=rounding
    )
    witness = vector_norm(exact(result.vector.double()))
    assert ((result.norm - witness).abs() <= rounding * exact.norm + smallest).all()
    assert result.hvps == matvec.calls <= budget
    # the documented bound: some |eigenvalue| lies within 2 residual of the norm
    distance = torch.linalg.eigvalsh(exact.matrices).abs() - result.norm[:, None]
    bound = 2 * result.residual + rounding * exact.norm + smallest
    assert (distance.abs().amin(1) <= bound).all()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 8), budget=st.integers(1, 10))
def test_norms_never_decrease_and_lanczos_beats_power(seed, size, budget):
    matvec, start = random_maps(seed, 4, size)
    slack = 1 - 1e-9
    for method in (power, lanczos):
        shorter = method(matvec, start, hvps=budget).norm
        longer = method(matvec, start, hvps=budget + 1).norm
        assert (longer >= shorter * slack).all()
    assert (lanczos(matvec, start, hvps=budget + 1).norm >= slack * shorter).all()
    shorter = power(matvec, start, hvps=budget).norm
    assert (lanczos(matvec, start, hvps=budget + 1).norm >= slack * shorter).all()
    shorter = estimate("ascent", matvec, start, hvps=budget).norm
    assert (estimate("ascent", matvec, start, hvps=budget + 2).norm >= slack * shorter).all()


def test_lanczos_recovers_more_than_power_on_average():
    matvec, start = random_maps(3, 500, 20)
    for budget in (3, 5, 8):
        by_power = power(matvec, start, hvps=budget).norm.mean()
        assert lanczos(matvec, start, hvps=budget).norm.mean() > by_power


def test_first_products_agree():
    """With one product all methods measure ``||H start|| / ||start||``."""
    matvec, start = random_maps(4, 3, 5)
    expected = vector_norm(matvec(start)) / vector_norm(start)
    for method in METHODS:
        assert torch.allclose(estimate(method, matvec, start, hvps=1).norm, expected, rtol=1e-14)


def test_ascent_is_gradient_ascent_on_the_norm_of_the_product():
    matvec, start = random_maps(5, 3, 5)
    vector = normalize(start).requires_grad_()
    (slope,) = torch.autograd.grad(vector_norm(matvec(vector)).sum(), vector)
    expected = normalize(vector + 0.3 * slope)
    result = ascent(matvec, start, hvps=3, step_size=0.3)
    assert torch.allclose(result.vector, expected, rtol=1e-13)
    assert torch.equal(ascent(matvec, start, hvps=4, step_size=0.3).vector, result.vector)


def test_ascent_goes_blind_where_the_hessian_is_small():
    matvec, start = random_maps(6, 20, 30)
    recovered = []
    for scale in (1.0, 0.001):
        scaled = SymmetricMaps(matvec.matrices * scale)
        recovered.append((ascent(scaled, start, hvps=21, step_size=1.0).norm / scaled.norm).mean())
    assert recovered[0] > recovered[1] + 0.3


@pytest.mark.parametrize("method", METHODS)
def test_early_stop(method):
    matvec, start = random_maps(7, 5, 10)
    budget = 50 if method == "lanczos" else 100_000
    result = estimate(method, matvec, start, hvps=budget, tolerance=1e-6)
    assert result.hvps == matvec.calls < budget
    assert result.converged.all()
    assert (result.residual <= 1e-6 * result.norm).all()
    assert torch.allclose(result.norm, matvec.norm, rtol=1e-6)
    looser = estimate(method, matvec, start, hvps=budget, tolerance=1e-2)
    assert looser.hvps < result.hvps


@pytest.mark.parametrize("method", METHODS)
def test_converged_is_per_image_and_false_without_a_tolerance(method):
    matrices = torch.diag_embed(torch.tensor([[2.0, 0.0, 0.0], [2.0, 1.9, 1.8]])).double()
    start = torch.ones(2, 3, dtype=torch.float64)
    result = estimate(method, SymmetricMaps(matrices), start, hvps=3, tolerance=1e-9)
    assert result.converged.tolist() == [method != "ascent", False]
    result = estimate(method, SymmetricMaps(matrices), start, hvps=3)
    assert result.converged.tolist() == [False, False]
    assert result.converged.dtype == torch.bool


@pytest.mark.parametrize("method", METHODS)
def test_opposite_eigenvalues(method):
    """``+a`` and ``-a`` never give one eigenvector, but the norm is right from the second step."""
    matvec = diagonal_map(3.0, -3.0, 1.0, 0.5)
    start = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    result = estimate(method, matvec, start, hvps=41, tolerance=1e-9)
    assert torch.allclose(result.norm, matvec.norm, rtol=1e-9)
    if method != "ascent":  # whose update has no (u, v) pair to accept
        assert result.converged.all()
        assert result.hvps < 41


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_zero_hessian(method, budget):
    matvec = SymmetricMaps(torch.zeros(2, 3, 3))
    result = estimate(method, matvec, torch.ones(2, 3), hvps=budget, tolerance=1e-3)
    assert torch.equal(result.norm, torch.zeros(2))
    assert torch.equal(result.residual, torch.zeros(2))
    assert result.converged.all()
    assert torch.allclose(vector_norm(result.vector), torch.ones(2))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-12, 1e-30, 1e15])
def test_scale_of_the_hessian_changes_only_the_scale(method, scale):
    matvec, start = random_maps(8, 3, 6, torch.float32)
    options = {"step_size": 0.5} if method == "ascent" else {}
    result = METHODS[method](matvec, start, hvps=5, **options)
    scaled = SymmetricMaps(matvec.matrices * scale)
    options = {"step_size": 0.5 / scale} if method == "ascent" else {}
    small = METHODS[method](scaled, start, hvps=5, **options)
    assert torch.allclose(small.norm / scale, result.norm, rtol=1e-4)
    assert torch.allclose(small.residual / scale, result.residual, rtol=1e-3, atol=1e-5)
    assert torch.allclose(small.vector, result.vector, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_start_orthogonal_to_the_top_eigenvector_finds_the_next(method):
    """A lower bound that looks converged: the residual cannot tell (documented)."""
    matvec = diagonal_map(3.0, 2.0, 1.0)
    for start in ([0.0, 1.0, 0.0], [0.0, 1.0, 1.0]):
        start = torch.tensor([start], dtype=torch.float64)
        result = estimate(method, matvec, start, hvps=61, tolerance=1e-7)
        assert torch.allclose(result.norm, torch.tensor(2.0, dtype=torch.float64), rtol=1e-7)
        assert result.converged.all()
        assert result.vector.isfinite().all()


def test_lanczos_breakdown_gives_no_nan():
    """A Krylov space of dimension 2, 1 and 0 in one batch, and a budget far beyond."""
    diagonals = torch.tensor([[3.0, -1.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 7.0, 7.0]])
    start = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 0.0]])
    for dtype in EPS:
        matvec = SymmetricMaps(torch.diag_embed(diagonals).to(dtype))
        result = lanczos(matvec, start.to(dtype), hvps=12)
        assert torch.allclose(result.norm[:2], torch.tensor([3.0, 5.0], dtype=dtype))
        assert 0 <= result.norm[2] <= 7  # the start lies in the kernel
        assert result.vector.isfinite().all()


def test_zero_start_falls_back_to_a_unit_vector():
    matvec = diagonal_map(3.0, -2.0, 1.0)
    start = torch.zeros(1, 3, dtype=torch.float64)
    for method in METHODS:
        result = estimate(method, matvec, start, hvps=1)
        assert torch.allclose(vector_norm(result.vector), torch.ones(1).double())
        assert torch.allclose(result.norm, torch.tensor(math.sqrt(14 / 3)).double())


@pytest.mark.parametrize("start", ["gradient", "softmax"])
def test_zero_gradient_in_a_network(start):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    with torch.no_grad():
        model[1].bias.fill_(0)
        model[1].bias[0] = 1e3  # the softmax saturates at class 0: the gradient is exactly zero
    images, _ = batch_of(3)
    hessian = InputHessian(model, images, torch.tensor([0, 0, 0]))
    assert not hessian.gradient.any()
    result = operator_norm(hessian, start=start, hvps=2, create_graph=True)
    assert torch.allclose(vector_norm(result.vector), torch.ones(3).double())
    assert result.norm.isfinite().all()
    gradients = torch.autograd.grad(result.norm.sum(), list(model.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("exponent", [-12, -30])
def test_tiny_hessians_in_single_precision(exponent):
    """Two classes, ``z = (0, w'x + b)``: ``H = p (1 - p) w w'`` with the tiny ``p = sigmoid(z)``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    probability = 10.0**exponent
    weight = torch.tensor([0.3, -0.2, 0.5, 0.1])
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.zeros(4), weight]))
        model[1].bias.copy_(torch.tensor([0.0, math.log(probability)]))
    hessian = InputHessian(model, torch.zeros(1, 1, 2, 2), torch.tensor([0]))
    result = operator_norm(hessian, start="gradient", hvps=3, create_graph=True)
    # exp turns the rounding of its argument, |log p| eps, into a relative error
    tolerance = 10 * (1 + abs(math.log(probability))) * EPS[torch.float32]
    assert result.norm.item() == pytest.approx(probability * 0.39, rel=tolerance)
    gradients = torch.autograd.grad(result.norm.sum(), model[1].parameters(), retain_graph=True)
    assert gradients[0][1].tolist() == pytest.approx((2 * probability * weight).tolist(), rel=1e-5)
    assert gradients[1][1].item() == pytest.approx(probability * 0.39, rel=tolerance)
    once = operator_norm(hessian, start="gradient", hvps=1, create_graph=True).norm
    squared = torch.autograd.grad(once.square().sum(), list(model.parameters()))
    assert all(g.isfinite().all() for g in squared)


@pytest.mark.parametrize("start", ["gradient", "softmax", "random"])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_saturated_softmax(start, architecture):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network(architecture, dtype=torch.float32)

        def forward(self, images):
            return 1e4 * self.network(images)

    model = Scaled()
    images, labels = batch_of(6, dtype=torch.float32)
    hessian = InputHessian(model, images, labels)
    result = operator_norm(hessian, start=start, hvps=3, create_graph=True, generator=seeded(0))
    assert result.norm.isfinite().all()
    (result.norm + hessian.loss).mean().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", ["gradient", "softmax", "tensor"])
def test_each_image_is_its_own_problem(method, start):
    """Permuting the batch permutes the result; duplicates agree; one image alone agrees."""
    model = network("cnn")
    images, labels = batch_of(5)
    images[4], labels[4] = images[1], labels[1]
    starts = torch.randn(images.shape, dtype=torch.float64, generator=seeded(3))
    starts[4] = starts[1]

    def run(chosen):
        options = {"step_size": 10.0} if method == "ascent" else {}
        first = starts[chosen] if start == "tensor" else start
        hessian = InputHessian(model, images[chosen], labels[chosen])
        return operator_norm(hessian, method=method, hvps=4, start=first, **options)

    everything = run(torch.arange(5))
    assert everything.norm[4].item() == pytest.approx(everything.norm[1].item(), rel=1e-11)
    for chosen in ([3, 0, 4, 2, 1], [2], [2, 2]):
        result = run(torch.tensor(chosen))
        assert torch.allclose(result.norm, everything.norm[chosen], rtol=1e-11)
        assert torch.allclose(result.vector, everything.vector[chosen], atol=1e-10)
        assert torch.allclose(result.residual, everything.residual[chosen], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("start", ["gradient", "softmax"])
@pytest.mark.parametrize("others", ["replaced", "scaled", "not a number"])
def test_other_images_change_nothing(method, start, others):
    model = network("cnn")
    images, labels = batch_of(4)
    changed = images.clone()
    changed[1:] = {
        "replaced": batch_of(3, seed=9)[0],
        "scaled": 1e6 * images[1:],
        "not a number": torch.full_like(images[1:], math.nan),
    }[others]
    options = {"step_size": 10.0} if method == "ascent" else {}
    before, after = (
        operator_norm(InputHessian(model, x, labels), method=method, hvps=4, start=start, **options)
        for x in (images, changed)
    )
    assert torch.allclose(before.norm[0], after.norm[0], rtol=1e-12)
    assert torch.allclose(before.vector[0], after.vector[0], atol=1e-11)
    assert after.norm[1:].isnan().all() == (others == "not a number")


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_softmax_eigenvector_is_the_top_eigenvector_of_the_softmax_hessian(classes):
    logits = 3 * torch.randn(6, classes, dtype=torch.float64, generator=seeded(0))
    p = logits.softmax(1)
    softmax_hessian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    largest = torch.linalg.eigvalsh(softmax_hessian)[:, -1]
    # 8 products leave (l_2 / l_1)^8 of the second eigenvector, its square in the quotient
    for steps, accuracy in ((8, 2e-3), (500, 1e-9)):
        w = normalize(softmax_eigenvector(logits, steps))
        quotient = torch.einsum("bi,bij,bj->b", w, softmax_hessian, w)
        assert (quotient <= largest * (1 + 1e-12)).all()
        assert quotient.mean() >= largest.mean() * (1 - accuracy)
        assert w.sum(1).abs().max() <= 2 * classes * EPS[torch.float64]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("gap", [5.0, 30.0, 200.0, 1e4])
def test_softmax_eigenvector_keeps_its_digits_where_the_softmax_saturates(dtype, gap):
    """``p_k = t r_k`` but for the top class: as ``t -> 0``, ``S / t -> [[1, -r'], [-r, diag r]]``."""
    below = torch.tensor([0.0, -0.5, -1.0], dtype=torch.float64)
    r = below.softmax(0)
    t = (below - gap).exp().sum() / (1 + (below - gap).exp().sum())
    scaled = torch.zeros(4, 4, dtype=torch.float64)
    scaled[0, 0], scaled[0, 1:], scaled[1:, 0] = 1 - t, -(1 - t) * r, -(1 - t) * r
    scaled[1:, 1:] = r.diag() - t * r[:, None] * r
    expected = torch.linalg.eigh(scaled).eigenvectors[:, -1]
    for shift in (0.0, 7.0):
        logits = shift + torch.cat([torch.zeros(1).double(), below - gap])[None]
        w = normalize(softmax_eigenvector(logits.to(dtype), 100))[0].double()
        # the logits themselves are rounded to eps of their size
        assert abs((w @ expected).abs().item() - 1) <= (10 + gap) * EPS[dtype]


def test_softmax_eigenvector_follows_the_classes_and_forgets_a_common_shift():
    logits = torch.randn(5, 6, dtype=torch.float64, generator=seeded(0))
    w = softmax_eigenvector(logits)
    order = [3, 1, 5, 0, 4, 2]
    assert torch.allclose(softmax_eigenvector(logits[:, order]), w[:, order], rtol=1e-12)
    assert torch.allclose(softmax_eigenvector(logits + 3), w, rtol=1e-12)
    assert softmax_eigenvector(logits[:, :2]).abs().std(1).max() < 1e-14  # (1, -1)
    ties = softmax_eigenvector(torch.zeros(1, 4))
    assert ties.isfinite().all()
    assert ties.any()


@pytest.mark.parametrize("passes", [InputHessian, LayerwiseHessian])
def test_softmax_start_is_exact_for_two_classes(passes):
    """``H = p_0 p_1 d d'`` with ``d`` the difference of the weights; ``J'(1, -1) = d``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    images, _ = batch_of(5)
    hessian = passes(model, images, torch.tensor([0, 1, 1, 0, 1]))
    exact = hessian.logits.detach().softmax(1).prod(1) * model[1].weight.diff(dim=0).square().sum()
    result = operator_norm(hessian, start="softmax", hvps=1)
    assert torch.allclose(result.norm, exact.detach(), rtol=1e-13)


def test_one_product_from_the_softmax_start_suffices_where_the_jacobian_is_orthogonal():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)).double()
    with torch.no_grad():
        nn.init.orthogonal_(model[1].weight, 3)
    images, labels = batch_of(50)
    hessian = InputHessian(model, images, labels)
    p = hessian.logits.detach().softmax(1)
    exact = torch.linalg.eigvalsh(9 * (torch.diag_embed(p) - p[:, :, None] * p[:, None]))[:, -1]
    found = {
        start: (operator_norm(hessian, start=start, hvps=1).norm.mean() / exact.mean()).item()
        for start in ("gradient", "softmax")
    }
    assert found["gradient"] < 0.9
    assert 0.995 < found["softmax"] <= 1 + 1e-12


@pytest.mark.parametrize("label", [0, 1])
def test_softmax_start_where_the_softmax_is_one_hot(label):
    """In float32 ``p`` is exactly one-hot: for the right label H = 0, else H = hess (z_0 - z_1)."""
    model = network("mlp", dtype=torch.float32)
    with torch.no_grad():
        model[-1].bias[0] += 1e3
    images, _ = batch_of(3, dtype=torch.float32)
    hessian = InputHessian(model, images, torch.full((3,), label))
    assert hessian.logits.softmax(1).ne(0).sum() == 3
    result = operator_norm(hessian, start="softmax", hvps=2, create_graph=True)
    assert torch.allclose(vector_norm(result.vector), torch.ones(3))
    assert (result.norm > 0).tolist() == [label != 0] * 3
    gradients = torch.autograd.grad(result.norm.sum(), list(model.parameters()))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("options", [{"method": "lanczos", "hvps": 10}, {"hvps": 400}])
@pytest.mark.parametrize("squared", [False, True])
def test_parameter_gradient_is_that_of_the_true_norm(architecture, options, squared):
    shape = (1, 3, 3)
    model = network(architecture, "tanh", shape)
    images, labels = batch_of(3, shape)

    def penalty(norms):
        return (norms.square() if squared else norms).mean()

    def true_penalty(model):
        eigenvalues = torch.linalg.eigvalsh(explicit_hessians(model, images, labels))
        return penalty(eigenvalues.abs().amax(1))

    hessian = InputHessian(model, images, labels)
    estimated = penalty(operator_norm(hessian, start="gradient", create_graph=True, **options).norm)
    assert estimated.item() == pytest.approx(true_penalty(model).item(), rel=1e-8)
    assert_slopes_agree(estimated, true_penalty, model)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("start", ["gradient", "softmax", "tensor"])
def test_parameter_gradient_of_one_product_holds_the_vector_fixed(architecture, start):
    shape = (1, 3, 3)
    model = network(architecture, "softplus", shape)
    images, labels = batch_of(3, shape)
    first = torch.randn(images.shape, dtype=torch.float64, generator=seeded(5))
    hessian = InputHessian(model, images, labels)
    result = operator_norm(
        hessian, start=first if start == "tensor" else start, hvps=1, create_graph=True
    )
    assert not result.vector.requires_grad

    def norm_at_fixed_vector(model):
        products = torch.einsum(
            "bij,bj->bi", explicit_hessians(model, images, labels), result.vector.flatten(1)
        )
        return vector_norm(products).mean()

    assert_slopes_agree(result.norm.mean(), norm_at_fixed_vector, model)


def test_only_the_last_product_keeps_a_graph():
    images, labels = batch_of(2)
    kept = []
    hessian = InputHessian(network(), images, labels)

    def matvec(vector, *, create_graph=False):
        kept.append(create_graph)
        return hessian.matvec(vector, create_graph=create_graph)

    for method, calls in [("power", 4), ("lanczos", 4), ("ascent", 3)]:
        kept.clear()
        result = estimate(method, matvec, hessian.gradient, hvps=4, create_graph=True)
        assert kept == [False] * (calls - 1) + [True]
        assert result.norm.requires_grad
        assert not result.vector.requires_grad
        assert result.residual is None
    for method in METHODS:
        assert not estimate(method, hessian.matvec, hessian.gradient, hvps=4).norm.requires_grad


def test_difference_step_in_operator_norm():
    images, labels = batch_of(3)
    hessian = InputHessian(network(), images, labels)
    exact = operator_norm(hessian, start="gradient", hvps=2)
    cure = operator_norm(hessian, start="gradient", hvps=2, difference_step=1e-6)
    # first order in the step, then rounding 1e-16 / step
    assert torch.allclose(cure.norm, exact.norm, rtol=1e-4)
    assert cure.hvps == 2
    vector = normalize(hessian.gradient)
    moved = InputHessian(network(), images + 1.5 * vector, labels)
    expected = vector_norm(moved.gradient - hessian.gradient) / 1.5
    first = operator_norm(hessian, start="gradient", hvps=1, difference_step=1.5)
    assert torch.allclose(first.norm, expected, rtol=1e-12)
    with pytest.raises(
        ValueError, match=r"difference_step: expected .* got LayerwiseHessian; build"
    ):
        operator_norm(derivatives(network(), images, labels), difference_step=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "method: expected one of power, lanczos, ascent, got 'newton'"),
        ({"hvps": 0}, "hvps: expected at least 1 Hessian-vector product, got 0"),
        ({"start": "zeros"}, "start: expected gradient, softmax, random or a tensor, got 'zeros'"),
        ({"start": torch.ones(2, 16)}, r"start: expected a tensor of shape \(2, 1, 4, 4\), got"),
        ({"tolerance": 0.1, "create_graph": True}, "fixed budget hvps"),
        ({"method": "ascent"}, "step_size: needed by ascent alone, got None with ascent"),
        ({"step_size": 1.0}, "step_size: needed by ascent alone, got 1.0 with power"),
        ({"difference_step": 0.0}, "difference_step: expected a positive length, got 0.0"),
    ],
)
def test_bad_arguments_are_explained(options, message):
    hessian = InputHessian(network(), *batch_of(2))
    with pytest.raises(ValueError, match=message):
        operator_norm(hessian, **options)


def test_an_eigenvalue_needs_a_product():
    matvec, start = random_maps(0, 2, 3)
    with pytest.raises(ValueError, match="hvps: expected at least 1 Hessian-vector product, got 0"):
        largest_eigenvalue(matvec, start, hvps=0)


def test_random_start_draws_from_its_generator_alone():
    hessian = InputHessian(network(), *batch_of(2))
    state = torch.get_rng_state()
    vectors = [
        operator_norm(hessian, start="random", hvps=1, generator=seeded(seed)).vector
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])


def random_start(images, seed=4):
    return torch.randn(images.shape, dtype=images.dtype, generator=seeded(seed))


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_largest_eigenvalue_is_that_of_the_explicit_hessian(architecture):
    model = network(architecture)
    images, labels = batch_of(6)
    matvec = InputHessian(model, images, labels).matvec
    result = largest_eigenvalue(matvec, random_start(images), hvps=17, tolerance=1e-9)
    expected = torch.linalg.eigvalsh(explicit_hessians(model, images, labels))[:, -1]
    assert torch.allclose(result.value, expected, rtol=1e-9)
    assert result.converged.all()
    quotient = (result.vector * matvec(result.vector)).flatten(1).sum(1)
    assert torch.allclose(result.value, quotient, rtol=1e-9)


def test_largest_eigenvalue_of_softmax_regression_has_its_closed_form():
    """Two classes: ``H = p (1 - p) (w1 - w0)(w1 - w0)'``, all other eigenvalues 0."""
    images, _ = batch_of(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    hessian = InputHessian(model, images, torch.tensor([0, 1, 0, 1, 0]))
    result = largest_eigenvalue(hessian.matvec, random_start(images), hvps=3, tolerance=1e-9)
    p = hessian.logits.detach().softmax(1)
    expected = p.prod(1) * (model[1].weight[1] - model[1].weight[0]).square().sum()
    assert torch.allclose(result.value, expected, rtol=1e-12)
    assert result.converged.all()


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 8),
    shift=st.sampled_from([-10.0, 0.0, 10.0]),  # all negative, both signs, all positive (mostly)
    budget=st.integers(1, 12),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_budget_bounds_the_largest_eigenvalue_from_below(seed, size, shift, budget, dtype):
    matvec, start = random_maps(seed, 3, size, dtype)
    matvec.matrices += shift * torch.eye(size, dtype=dtype)
    result = largest_eigenvalue(matvec, start, hvps=budget)
    assert result.hvps == matvec.calls == budget
    eigenvalues = torch.linalg.eigvalsh(matvec.matrices.double())
    rounding = 20 * size * EPS[dtype] * eigenvalues.abs().amax(1)
    assert (result.value <= eigenvalues[:, -1] + rounding).all()
    distance = (eigenvalues - result.value[:, None]).abs().amin(1)
    assert (distance <= result.residual + rounding).all()
    if budget >= size and dtype == torch.float64:
        # The whole space: an eigenvalue, and the largest (the start has a component along it).
        assert torch.allclose(result.value, eigenvalues[:, -1], rtol=1e-6, atol=1e-6)
    longer = largest_eigenvalue(matvec, start, hvps=budget + 1)
    assert (longer.value >= result.value - rounding).all()


@pytest.mark.parametrize("dtype", EPS)
def test_largest_eigenvalue_of_negative_definite_and_zero_hessians(dtype):
    """The Krylov spaces end after 1, 3 and 1 products; no later vector passes for eigenvalue 0."""
    diagonals = torch.tensor([[-2.0, -2.0, -2.0, -2.0], [-5.0, -3.0, -1.0, -1.0], [0.0] * 4])
    matvec = SymmetricMaps(torch.diag_embed(diagonals).to(dtype))
    start = torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=dtype).expand(3, -1)
    for options in ({}, {"tolerance": 1e-5}):
        result = largest_eigenvalue(matvec, start, hvps=9, **options)
        expected = torch.tensor([-2.0, -1.0, 0.0], dtype=dtype)
        assert torch.allclose(result.value, expected, atol=1e-5)
        assert torch.allclose(vector_norm(result.vector), torch.ones(3, dtype=dtype), rtol=1e-5)
        assert result.converged.all() == bool(options)
    assert result.hvps <= 4


def test_the_sign_of_the_largest_eigenvalue_is_not_that_of_the_norm():
    matvec = diagonal_map(-9.0, 2.0, 1.0)
    start = torch.ones(1, 3, dtype=torch.float64)
    result = largest_eigenvalue(matvec, start, hvps=3)
    assert result.value.item() == pytest.approx(2)
    assert lanczos(matvec, start, hvps=4).norm.item() == pytest.approx(9)


def test_largest_eigenvalue_is_scaled_and_separate_per_image():
    matvec, start = random_maps(8, 3, 6, torch.float32)
    reference = largest_eigenvalue(matvec, start, hvps=5)
    scales = torch.tensor([1e-30, 1.0, 1e15])
    scaled = SymmetricMaps(matvec.matrices * scales[:, None, None])
    result = largest_eigenvalue(scaled, start, hvps=5)
    assert torch.allclose(result.value / scales, reference.value, rtol=1e-4)
    matvec.matrices[1] = math.nan
    result = largest_eigenvalue(matvec, start, hvps=5)
    assert torch.allclose(result.value[::2], reference.value[::2], rtol=1e-5)
    assert result.value[1].isnan()
