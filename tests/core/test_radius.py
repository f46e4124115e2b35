"""The radii against quadratics searched direction by direction, linear classifiers, and networks.

A quadratic ``q(u r) = r g'u + r^2/2 u'Hu`` in the plane is searched over all directions ``u``; a
linear two-class softmax has its smallest perturbation in closed form; the bound along a path is
compared with how far networks really had to go.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import batch_of, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from input_hessian import InputHessian
from input_hessian.estimators import largest_eigenvalue
from input_hessian.radius import crossing_radius, path_derivatives, path_radius, predicted_radius
from input_hessian.vectors import normalize, vector_norm

LOG2 = math.log(2)
ANGLES = np.linspace(0, 2 * np.pi, 1441)  # every quarter of a degree, the axes among them


def radius(loss, gradient_norm, eigenvalue, threshold=LOG2):
    values = (torch.tensor([v], dtype=torch.float64) for v in (loss, gradient_norm, eigenvalue))
    return predicted_radius(*values, threshold).item()


def smallest_crossing(gap, gradient, hessian):
    """The smallest ``||delta||`` with ``g'delta + delta'H delta/2 = gap``, over all directions.

    Per direction by numpy's polynomial roots: an independent way, without the stable form.
    """
    directions = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)
    smallest = math.inf
    for u in directions:
        roots = np.roots([u @ hessian @ u / 2, gradient @ u, -gap])
        real = roots[np.abs(roots.imag) < 1e-12].real
        smallest = min([smallest, *real[real > 0]])
    return smallest


@pytest.mark.parametrize(
    "eigenvalues", [(3.0, 1.0), (2.0, -5.0), (0.5, 0.0), (-0.05, -1.0), (-3.0, -4.0)]
)
def test_equal_to_the_smallest_root_where_the_gradient_is_the_top_eigenvector(eigenvalues):
    hessian = np.diag(eigenvalues)
    found = radius(0.2, 0.6, eigenvalues[0], threshold=0.9)
    expected = smallest_crossing(0.7, np.array([0.6, 0.0]), hessian)
    assert found == pytest.approx(expected, rel=1e-9)
    assert math.isinf(found) == (eigenvalues[0] == -3)  # 0.6^2 < 2 * 3 * 0.7: it turns before


@pytest.mark.parametrize("seed", range(6))
def test_never_beyond_the_smallest_root_of_any_direction(seed):
    rng = np.random.default_rng(seed)
    square, gradient = rng.normal(size=(2, 2)), rng.normal(size=2)
    hessian = square + square.T - (seed >= 4) * 4 * np.eye(2)
    nu = np.linalg.eigvalsh(hessian)[-1]
    assert (nu < 0) == (seed >= 4)
    found = radius(0, np.linalg.norm(gradient), nu, threshold=0.5)
    assert found <= smallest_crossing(0.5, gradient, hessian) * (1 + 1e-9)


def test_the_published_form():
    """Moosavi-Dezfooli et al. 2019, theorem 1."""
    loss, norm, nu = 0.1, 0.3, 2.0
    c = math.log(2) - loss
    expected = norm / nu * (math.sqrt(1 + 2 * nu * c / norm**2) - 1)
    assert radius(loss, norm, nu) == pytest.approx(expected, rel=1e-14)


def test_limits():
    c = math.log(2)
    assert radius(0, 0.5, 0) == pytest.approx(c / 0.5, rel=1e-15)  # linear
    assert radius(0, 0, 2.0) == pytest.approx(math.sqrt(c), rel=1e-15)  # no gradient
    assert radius(0, 1.0, 1e-13) == pytest.approx(c, rel=1e-12)  # where the published form cancels
    assert radius(0, 1.0, -1e-13) == pytest.approx(c, rel=1e-12)
    assert radius(0, 0, 0) == radius(0, 0, -1.0) == math.inf  # constant, or falling everywhere
    assert radius(0, 1.0, -1 / (2 * c)) == pytest.approx(2 * c)  # turns at the very level
    assert radius(0, 1.0, -1.001 / (2 * c)) == math.inf


@pytest.mark.parametrize("loss", [math.log(2), 5.0, math.inf])
@pytest.mark.parametrize("norm", [0.0, 1.0])
@pytest.mark.parametrize("nu", [-1.0, 0.0, 1.0])
def test_zero_above_the_threshold(loss, norm, nu):
    assert radius(loss, norm, nu) == 0


positive = st.floats(1e-6, 1e3)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(loss=st.floats(0, 1), norm=positive, nu=st.floats(-1e3, 1e3), factor=st.floats(1.0001, 10))
def test_monotone_in_each_argument(loss, norm, nu, factor):
    here, slack = radius(loss, norm, nu), 1 + 1e-9
    assert radius(loss * factor, norm, nu) <= here * slack
    assert radius(loss, norm * factor, nu) <= here * slack
    assert radius(loss, norm, nu + (factor - 1) * abs(nu)) <= here * slack
    assert radius(loss, norm, nu, threshold=math.log(2) * factor) >= here / slack


@settings(deadline=None, derandomize=True, max_examples=200)
@given(gap=st.floats(1e-9, 1e3), slope=positive, curvature=st.floats(-1e3, 1e3))
def test_crossing_radius_solves_its_equation(gap, slope, curvature):
    gap, slope, curvature = (torch.tensor(v, dtype=torch.float64) for v in (gap, slope, curvature))
    r = crossing_radius(gap, slope, curvature)
    # Close to the turning point the root is the square root of a difference: no digits to check.
    if r.isfinite() and slope**2 + 2 * curvature * gap > 1e-6 * slope**2:
        assert (slope * r + curvature * r**2 / 2).item() == pytest.approx(gap.item(), rel=1e-6)
        assert curvature >= 0 or r <= -slope / curvature * (1 + 1e-6)  # the first of both roots


@pytest.mark.parametrize("curvature", [-1e-36, 0.0, 1e-36])
def test_tiny_slopes_do_not_underflow(curvature):
    """Of a saturated network in float32, whose squares are below the smallest number."""
    gap, slope = torch.tensor([1e-27]), torch.tensor([1e-30])
    double = crossing_radius(gap.double(), slope.double(), torch.tensor([curvature]).double())
    single = crossing_radius(gap, slope, torch.tensor([curvature]))
    assert single.item() == pytest.approx(double.item(), rel=1e-5)


def test_a_radius_per_image_needs_one_number_per_image():
    with pytest.raises(ValueError, match=r"of one shape, got \(3,\), \(3, 1\), \(3,\)"):
        predicted_radius(torch.zeros(3), torch.ones(3, 1), torch.ones(3))


def linear_softmax(margins):
    """Two classes and images whose label 0 leads by the given margins; and ``||w1 - w0||``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 2)).double()
    direction = (model[1].weight[1] - model[1].weight[0]).detach()
    offset = (model[1].bias[1] - model[1].bias[0]).detach()
    shift = (-margins - offset) / direction.square().sum()
    return model, (shift[:, None] * direction).view(-1, 1, 3, 3), direction.norm()


def test_a_linear_classifier_is_always_nearer_to_its_boundary_than_predicted():
    """The smallest perturbation is ``margin / ||w1 - w0||``; the prediction is beyond it.

    Towards the boundary the loss ``log(1 + exp(-m))`` has third derivative ``p (1-p) (1-2p) > 0``
    (``p < 1/2`` the other class's probability), so it outgrows its quadratic model, but the model
    becomes exact at the boundary.
    """
    margins = torch.tensor([1e-3, 0.1, 1, 2, 5, 10, 20], dtype=torch.float64)
    model, images, norm = linear_softmax(margins)
    hessian = InputHessian(model, images, torch.zeros(len(margins), dtype=torch.int64))
    nu = largest_eigenvalue(hessian.matvec, torch.rand_like(images), hvps=3).value
    predicted = predicted_radius(hessian.loss, vector_norm(hessian.gradient), nu).detach()
    exact = margins / norm
    # ||g|| = p ||w||, nu = p (1 - p) ||w||^2, loss = log(1 + exp(-m)): the ratio depends on m alone.
    p = torch.sigmoid(-margins)
    c = math.log(2) - torch.nn.functional.softplus(-margins)
    closed = ((p**2 + 2 * p * (1 - p) * c).sqrt() - p) / (p * (1 - p)) / margins
    ratio = predicted / exact
    assert torch.allclose(ratio, closed, rtol=1e-6)
    assert (ratio > 1).all()
    assert (ratio.diff() > 0).all()
    assert ratio[0].item() == pytest.approx(1, abs=1e-3)
    assert ratio[-1] > 100  # without limit: no lower bound of the network's own radius


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


# Three images of 2x3 pixels, each with a direction, not of length 1, and four distances of its own.
IMAGES, DIRECTION, DISTANCES = normal(3, 2, 3), normal(3, 2, 3, seed=1), normal(3, 4, seed=2)
LINE = IMAGES[:, None] + DISTANCES[..., None, None] * DIRECTION[:, None]  # [3, 4, 2, 3]


def test_path_derivatives_of_a_cubic_and_a_quadratic():
    """``f = c'x^3 + x'Ax/2 + b'x``, with coefficients ``c`` and ``b`` that differ by image."""
    square = normal(6, 6, seed=3)
    a, b, c = square + square.T, normal(3, 6, seed=4), normal(3, 6, seed=5)
    calls = []

    def function(x):
        calls.append(x.detach())
        flat = x.flatten(1)
        b_of, c_of = (of.repeat_interleave(4, 0) for of in (b, c))
        return (c_of * flat**3 + flat @ a * flat / 2 + b_of * flat).sum(1)

    found = path_derivatives(function, IMAGES, DIRECTION, DISTANCES)
    (points,) = calls
    assert torch.equal(points, LINE.flatten(0, 1))
    x, u = LINE.flatten(2), DIRECTION.flatten(1)[:, None]
    b, c = b[:, None], c[:, None]
    expected = (
        (c * x**3 + x @ a * x / 2 + b * x).sum(2),
        ((3 * c * x**2 + x @ a + b) * u).sum(2),
        ((6 * c * x * u + u @ a) * u).sum(2),
    )
    for value, right in zip(found, expected, strict=True):
        assert value.shape == (3, 4)
        assert not value.requires_grad
        assert torch.allclose(value, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_linear_function_has_no_curvature_on_any_path(trainable):
    """Also where the slope has a graph, which leads to the parameters alone."""
    linear = nn.Linear(6, 1).double().requires_grad_(trainable)
    value, slope, curvature = path_derivatives(
        lambda x: linear(x.flatten(1))[:, 0], IMAGES, DIRECTION, DISTANCES
    )
    expected = (DIRECTION.flatten(1) @ linear.weight[0])[:, None].expand(3, 4)
    assert torch.allclose(slope, expected, rtol=1e-12)
    assert torch.allclose(value[:, 1] - value[:, 0], (DISTANCES * slope).diff(dim=1)[:, 0])
    assert torch.equal(curvature, torch.zeros(3, 4, dtype=torch.float64))


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_path_derivatives_of_a_network_are_its_differences(architecture):
    model, (images, labels) = network(architecture), batch_of(3)
    direction, distances = normalize(normal(*images.shape)), normal(3, 5, seed=1)
    of_points = labels.repeat_interleave(5)

    def loss(x):
        return F.cross_entropy(model(x), of_points, reduction="none")

    def at(shift):
        points = images[:, None] + (distances + shift)[..., None, None, None] * direction[:, None]
        return loss(points.flatten(0, 1)).view(3, 5).detach()

    with torch.no_grad():
        found = path_derivatives(loss, images, direction, distances)
    assert torch.allclose(found[0], at(0), rtol=1e-13)
    for order, step in ((1, 1e-4), (2, 1e-3)):
        near, far = (
            (at(h) - at(-h)) / (2 * h) if order == 1 else (at(h) - 2 * at(0) + at(-h)) / h**2
            for h in (step, 2 * step)
        )
        # the difference of the two is three times the truncation error; the rest is rounding
        error = (far - near).abs() + 100 * 2.0**-52 * at(0) / step**order
        assert (error < 1e-3 * near.abs().amax()).all()
        assert ((found[order] - near).abs() <= error).all()
    assert all(parameter.grad is None for parameter in model.parameters())


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    gap=st.floats(1e-6, 1e3),
    slope=positive,
    curvature=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=5),
)
def test_path_radius_is_the_crossing_at_the_largest_curvature(gap, slope, curvature):
    gap, slope, on_path = (torch.tensor([v]).double() for v in (gap, slope, curvature))
    expected = crossing_radius(gap, slope, torch.tensor([max(curvature)]).double())
    assert torch.equal(path_radius(gap, slope, on_path), expected)
    assert path_radius(-gap, slope, on_path) == path_radius(0 * gap, slope, on_path) == 0


@pytest.mark.parametrize("along", ["gradient", "random"])
@pytest.mark.parametrize("activation", ["softplus", "tanh", "gelu"])
@pytest.mark.parametrize(("seed", "scale"), [(0, 1), (1, 5), (2, 25)])
def test_no_path_leaves_its_bound(seed, scale, activation, along):
    """Wherever the loss has risen by ``gap``, the path has come as far as ``path_radius`` says."""
    model, (images, labels) = network(activation=activation, seed=seed), batch_of(6, seed=seed)
    with torch.no_grad():
        model[-1].weight *= scale
    gradient = InputHessian(model, images, labels).gradient.detach()
    direction = normalize(gradient if along == "gradient" else normal(*images.shape, seed=seed))
    distances = torch.linspace(0, 4, 401, dtype=torch.float64).expand(6, 401)
    of_points = labels.repeat_interleave(401)
    value, _, curvature = path_derivatives(
        lambda x: F.cross_entropy(model(x), of_points, reduction="none"),
        images,
        direction,
        distances,
    )
    for stop in (1, 5, 20, 50, 100, 200, 400):
        gap, reached = value[:, stop] - value[:, 0], distances[:, stop]
        bound = path_radius(gap, vector_norm(gradient), curvature[:, : stop + 1])
        assert (bound <= reached * (1 + 1e-4)).all()
        if along == "gradient" and stop == 1:  # where it is tight
            assert (bound > 0.98 * reached).all()


def test_the_quadratic_model_at_the_image_is_no_such_bound():
    """``f = x^4/12 + x`` from 0, where it has no curvature: at 2 it has risen by 10/3."""
    points = torch.linspace(0, 2, 101, dtype=torch.float64)[None]
    one = torch.ones(1, 1, dtype=torch.float64)
    value, slope, curvature = path_derivatives(
        lambda x: (x**4 / 12 + x)[:, 0], 0 * one, one, points
    )
    gap = value[:, -1] - value[:, 0]
    assert gap.item() == pytest.approx(10 / 3)
    assert crossing_radius(gap, slope[:, 0], curvature[:, 0]).item() == pytest.approx(10 / 3)
    # f'' = x^2 is 4 at the end: r + 2 r^2 = 10/3
    bound = path_radius(gap, slope[:, 0], curvature).item()
    assert bound == pytest.approx((math.sqrt(1 + 80 / 3) - 1) / 4)
    assert bound < 2
