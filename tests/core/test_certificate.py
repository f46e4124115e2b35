"""The certificate against explicit Hessians, closed forms, and what an attack finds."""

import itertools
import math

import foolbox
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import ACTIVATIONS, ARCHITECTURES
from torch import nn

from input_hessian.certificate import certified_radius, curvature_bound
from input_hessian.radius import crossing_radius


def network(*sizes, beta=1.0, scale=1.0, seed=0):
    """Fully connected softplus layers, in float64."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(sizes):
        layer = nn.Linear(inputs, outputs).double()
        for parameter in layer.parameters():
            values = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
            parameter.data = scale * values / math.sqrt(inputs)
        layers += [layer, nn.Softplus(beta)]
    return nn.Sequential(*layers[:-1]).requires_grad_(False)


def margin_hessians(model, points, label, other):
    """``hess_x (z_y - z_t)`` at every point, as matrices, forward over reverse."""

    def margin(x):
        logits = model(x[None])[0]
        return logits[label] - logits[other]

    return torch.func.vmap(torch.func.hessian(margin))(points)


@pytest.mark.parametrize("sizes", [(6, 5, 3), (6, 5, 4, 3), (3, 8, 3), (4, 5, 6, 7, 3)])
@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_bound_holds_at_random_points_of_every_size(sizes, beta):
    model = network(*sizes, beta=beta, scale=2.0)
    bound = curvature_bound(model)
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(400, sizes[0], dtype=torch.float64, generator=generator)
    points *= torch.logspace(-2, 1, 400, dtype=torch.float64)[:, None] / beta
    tightest = 0
    for label in range(3):
        for other in range(3):
            lowest = torch.linalg.eigvalsh(margin_hessians(model, points, label, other))[:, 0].min()
            assert lowest >= -bound[label, other] * (1 + 1e-12) - 1e-12
            if label != other:
                tightest = max(tightest, (-lowest / bound[label, other]).item())
    assert tightest > 0.05  # a bound that is not vacuous


def test_bound_of_one_hidden_layer_has_its_closed_form_and_is_attained():
    """``H = W'diag(w s''(a))W`` and ``s''(0) = beta/4``: with one unit, equality at ``a = 0``."""
    beta, model = 3.0, network(4, 1, 2, beta=3.0)
    hidden, last = model[1], model[3]
    hidden.bias.zero_()
    last.weight.copy_(torch.tensor([[0.0], [2.0]]))
    expected = 2 * beta / 4 * hidden.weight.square().sum()
    bound = curvature_bound(model)
    assert bound[0, 1].item() == pytest.approx(expected.item(), rel=1e-12)
    assert bound[1, 0] == 0  # z_1 - z_0 is convex: its linear model is already a lower bound
    origin = torch.zeros(1, 4, dtype=torch.float64)
    lowest = torch.linalg.eigvalsh(margin_hessians(model, origin, 0, 1))[0, 0]
    assert lowest.item() == pytest.approx(-expected.item(), rel=1e-12)


def test_bound_of_two_hidden_layers_is_the_formula_written_out():
    model, beta = network(5, 4, 3, 2, beta=2.0), 2.0
    first, second, last = (layer.weight for layer in model if isinstance(layer, nn.Linear))
    w = last[0] - last[1]
    norm = torch.linalg.matrix_norm
    left = torch.diag((-w).clamp_min(0).sqrt())
    jacobian = (norm(left @ second @ first, 2) + norm(left @ second, 2) * norm(first, 2)) / 2
    # u_1 = W_2'(w s'): each term anywhere between 0 and its value at s' = 1
    lowest = (w[:, None] * second).clamp_max(0).sum(0)
    through = torch.diag((-lowest).sqrt())
    expected = beta / 4 * (jacobian**2 + norm(through @ first, 2) ** 2)
    assert curvature_bound(model)[0, 1].item() == pytest.approx(expected.item(), rel=1e-12)
    published = norm(left @ second, 2) * norm(first, 2)
    assert jacobian < published


def test_linear_network_is_certified_up_to_its_boundary():
    model = network(6, 4)
    images = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    labels = model(images).argmax(1)
    labels[:5] = (labels[:5] + 1) % 4
    weight, logits = model[1].weight, model(images)
    expected = torch.full((50,), torch.inf, dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        for other in set(range(4)) - {label}:
            margin = (logits[i, label] - logits[i, other]).clamp_min(0)
            expected[i] = min(expected[i], margin / (weight[label] - weight[other]).norm())
    assert not curvature_bound(model).any()
    radius = certified_radius(model, images, labels)
    assert torch.allclose(radius, expected, rtol=1e-12)
    assert (radius[:5] == 0).all()
    assert (radius[5:] > 0).all()


def test_tight_where_the_margin_bends_as_much_as_the_bound_allows():
    """One unit, ``f = c - w s(a)`` at ``a = 0``: for a small margin, the boundary is the radius."""
    model = network(4, 1, 2)
    model[1].bias.zero_()
    w, length = 2.0, model[1].weight.norm()
    model[3].weight.copy_(torch.tensor([[0.0], [w]]))
    image, label = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0])
    ratios = []
    for margin in (1.0, 0.1, 0.01):
        offsets = torch.tensor([margin + w * math.log(2), 0.0], dtype=torch.float64)
        model[3].bias.copy_(offsets)
        # The boundary: w log(1 + exp(a)) = c, at distance a / ||w_1||.
        boundary = math.log(math.expm1(math.log(2) + margin / w)) / length
        ratios.append((certified_radius(model, image, label) / boundary).item())
    assert all(ratio <= 1 for ratio in ratios)
    # s''' is zero at a = 0: the relative gap falls with the third power of the margin.
    assert 1 - ratios[0] < 1e-2
    assert 1 - ratios[1] < 1e-4
    assert 1 - ratios[2] < 1e-7


def trained(hidden, beta, seed):
    """A small network that separates three noisy prototypes, in float32."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.rand(3, 16, generator=generator)
    labels = torch.arange(240) % 3
    images = (prototypes[labels] + 0.25 * torch.randn(240, 16, generator=generator)).clamp(0, 1)
    images = images.view(-1, 1, 4, 4)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(16, *hidden, 3, beta=beta, seed=seed).float().requires_grad_()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval().requires_grad_(False), images, labels


@pytest.mark.parametrize(
    ("hidden", "beta"), [((12,), 1.0), ((12,), 10.0), ((12, 12), 1.0), ((12, 12), 10.0)]
)
def test_never_beyond_what_an_attack_finds(hidden, beta):
    model, images, labels = trained(hidden, beta, seed=3)
    correct = model(images).argmax(1) == labels
    assert correct.double().mean() > 0.9
    radius = certified_radius(model, images, labels)
    assert torch.equal(radius > 0, correct)
    # Unbounded pixels: the attacker may go where the certificate holds, not only into [0, 1].
    wrapped = foolbox.PyTorchModel(model, bounds=(-10, 10), device="cpu")
    attack = foolbox.attacks.DDNAttack(steps=100)
    criterion = foolbox.criteria.Misclassification(labels[correct])
    _, found, broken = attack(wrapped, images[correct], criterion, epsilons=None)
    distance = (found - images[correct]).flatten(1).norm(dim=1)
    assert broken.all()
    assert (radius[correct] <= distance).all()
    if beta == 1:
        assert (radius[correct] / distance).median() > 0.3  # and not trivially so


def test_perturbations_inside_the_radius_change_no_prediction():
    """The other direction of the same theorem, along the steepest way and at random."""
    model, images, labels = trained((12, 12), 1.0, seed=4)
    model, images = model.double(), images.double()
    radius = certified_radius(model, images, labels)
    chosen = radius > 0
    images, labels, radius = images[chosen], labels[chosen], radius[chosen]
    points = images.clone().requires_grad_()
    (steepest,) = torch.autograd.grad(F.cross_entropy(model(points), labels), points)
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        noise = torch.randn(images.shape, dtype=torch.float64, generator=generator)
        for direction in (steepest, noise):
            unit = direction / direction.flatten(1).norm(dim=1)[:, None, None, None]
            moved = images + radius[:, None, None, None] * unit
            assert (model(moved).argmax(1) == labels).all()


def test_gradients_elsewhere_certify_more_than_taylor_at_the_image():
    model, images, labels = trained((12, 12), 1.0, seed=4)
    model, images, bound = model.double(), images.double(), curvature_bound(model)
    points = images.clone().requires_grad_()
    logits = model(points)
    taylor = torch.full((len(images),), torch.inf, dtype=torch.float64)
    for other in range(3):
        margin = logits.gather(1, labels[:, None]).squeeze(1) - logits[:, other]
        (gradient,) = torch.autograd.grad(margin.sum(), points, retain_graph=True)
        closed = crossing_radius(
            margin.detach().clamp_min(0), gradient.flatten(1).norm(dim=1), bound[labels, other]
        )
        taylor = torch.where(labels == other, taylor, torch.minimum(taylor, closed))
    radius = certified_radius(model, images, labels)
    assert (radius >= taylor * (1 - 1e-12)).all()
    assert (radius / taylor)[taylor > 0].median() > 1.05


def test_computed_in_double_precision_from_a_single_precision_network():
    model, images, labels = trained((12, 12), 1.0, seed=3)
    single = certified_radius(model, images, labels)
    double = certified_radius(model.double(), images.double(), labels)
    assert single.dtype == torch.float64
    assert torch.allclose(single, double, rtol=1e-13)


@pytest.mark.parametrize(("architecture", "activation"), [("cnn", "softplus"), ("mlp", "relu")])
def test_other_networks_are_refused(architecture, activation):
    model = ARCHITECTURES[architecture]((1, 8, 8), 3, 4, ACTIVATIONS[activation])
    with pytest.raises(ValueError, match="fully connected layers with softplus between them"):
        curvature_bound(model)


def test_layers_without_finite_weights_or_that_do_not_fit_are_refused():
    model = ARCHITECTURES["mlp"]((1, 8, 8), 3, 4, ACTIVATIONS["softplus"])
    model[1].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"expected .* all weights finite, got NaN or infinity"):
        curvature_bound(model)
    misfit = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(2, 2))
    with pytest.raises(
        ValueError, match=r"got Linear\(in_features=4, out_features=3.*in_features=2"
    ):
        curvature_bound(misfit)
