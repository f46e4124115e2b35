"""The objectives: their values and parameter gradients against finite differences of the truth."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from input_hessian import InputHessian, models, operator_norm, regularizers
from input_hessian.curvature import vector_norm

torch.set_num_threads(1)

SHAPE = (1, 3, 3)
CLASSES = 4
CONVERGED = {"method": "lanczos", "hvps": 10}  # one product more than there are pixels

# every regularizer with a weight, ready to be built with any lam
WEIGHTED = {
    "gradient": {"squared": False},
    "gradient squared": {"squared": True},
    "hessian": {"squared": False, "estimator": CONVERGED},
    "hessian squared": {"squared": True, "estimator": CONVERGED},
    "taylor": {"estimator": CONVERGED},
}


@pytest.fixture(params=["mlp", "cnn"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.ARCHITECTURES[request.param](SHAPE, CLASSES, 6, nn.Tanh)
        with torch.no_grad():
            network[-1].weight *= 5  # confident enough for a Hessian of both signs
        return network.double()


@pytest.fixture
def batch():
    generator = seeded(1)
    images = torch.rand(5, *SHAPE, dtype=torch.float64, generator=generator)
    return images, torch.randint(CLASSES, (5,), generator=generator)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def build(name, lam):
    return regularizers.build(name.split()[0], lam=lam, **WEIGHTED[name])


def true_norms(model, images, labels):
    """``||g||`` and ``||H||`` from the explicit derivatives of one image at a time."""

    def loss(flat, label):
        return F.cross_entropy(model(flat.view(1, *SHAPE)), label[None])

    flat = images.flatten(1)
    gradients = torch.func.vmap(torch.func.grad(loss))(flat, labels)
    hessians = torch.func.vmap(torch.func.hessian(loss))(flat, labels)
    return gradients.norm(dim=1), torch.linalg.eigvalsh(hessians).abs().amax(1)


def true_penalty(name, lam, model, images, labels):
    gradient, hessian = (norm.detach() for norm in true_norms(model, images, labels))
    return {
        "gradient": lam * gradient,
        "gradient squared": lam * gradient**2,
        "hessian": lam * hessian,
        "hessian squared": lam * hessian**2,
        "taylor": lam * gradient + lam**2 / 2 * hessian,
    }[name]


def parameter_gradient(objective, model):
    loss = (objective.loss + objective.penalty).mean()
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("name", WEIGHTED)
def test_value(model, batch, name):
    objective = build(name, 0.7)(model, *batch, seeded(0))
    expected = true_penalty(name, 0.7, model, *batch)
    assert objective.penalty.shape == objective.loss.shape == (5,)
    assert torch.allclose(objective.penalty, expected, rtol=1e-10)
    assert torch.equal(objective.logits, model(batch[0]))
    loss = F.cross_entropy(objective.logits, batch[1], reduction="none")
    assert torch.allclose(objective.loss, loss, rtol=1e-14)


@pytest.mark.parametrize("name", WEIGHTED)
def test_parameter_gradient_is_that_of_the_true_objective(model, batch, name):
    images, labels = batch
    gradients = parameter_gradient(build(name, 0.7)(model, *batch, seeded(0)), model)
    state = {key: value.detach() for key, value in model.named_parameters()}
    generator = seeded(2)
    step, eps = 1e-5, 2.0**-52
    for _ in range(2):
        direction = {
            key: torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for key, value in state.items()
        }

        def objective(distance, direction=direction):
            moved = {key: state[key] + distance * direction[key] for key in state}
            network = _Functional(model, moved)
            loss = F.cross_entropy(network(images), labels, reduction="none")
            return (loss + true_penalty(name, 0.7, network, images, labels)).mean().item()

        near, far = ((objective(h) - objective(-h)) / (2 * h) for h in (step, 2 * step))
        # the difference of the two is three times the truncation error; the rest is rounding
        error = abs(far - near) + 100 * eps * objective(0) / step
        assert error < 1e-4 * abs(near)
        pairs = zip(gradients, direction.values(), strict=True)
        assert sum((g * d).sum().item() for g, d in pairs) == pytest.approx(near, abs=error)


class _Functional:
    def __init__(self, model, state):
        self.model, self.state = model, state

    def __call__(self, images):
        return torch.func.functional_call(self.model, self.state, (images,))


@pytest.mark.parametrize("name", WEIGHTED)
def test_lam_zero_is_plain_training(model, batch, name):
    plain = regularizers.build("none")(model, *batch, seeded(0))
    other = build(name, 0.0)(model, *batch, seeded(0))
    assert torch.allclose(other.loss, plain.loss, rtol=1e-14)
    assert torch.equal(other.penalty, torch.zeros(5, dtype=torch.float64))
    for a, b in zip(
        parameter_gradient(other, model), parameter_gradient(plain, model), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("lam", [0.3, 2.0])
def test_taylor_is_the_sum_of_its_parts(model, batch, lam):
    estimator = {"hvps": 2}
    taylor = regularizers.build("taylor", lam=lam, estimator=estimator)
    gradient = regularizers.build("gradient", lam=lam, squared=False)
    hessian = regularizers.build("hessian", lam=lam**2 / 2, squared=False, estimator=estimator)
    whole, first, second = (r(model, *batch, seeded(0)) for r in (taylor, gradient, hessian))
    assert torch.allclose(whole.penalty, first.penalty + second.penalty, rtol=1e-12)


def test_taylor_bounds_the_quadratic_model_of_the_loss(model, batch):
    """No l2 attack of size lam raises ``ell + g'd + d'Hd/2`` by more than the penalty."""
    lam = 0.5
    penalty = build("taylor", lam)(model, *batch, seeded(0)).penalty.detach()
    hessian = InputHessian(model, *batch)
    gradient = hessian.gradient.detach()
    candidates = [gradient, -gradient, operator_norm(hessian, **CONVERGED).vector]
    candidates += [torch.randn(gradient.shape, dtype=torch.float64, generator=seeded(3))]
    for attack in candidates:
        attack = lam * attack / vector_norm(attack).view(-1, 1, 1, 1)
        rise = ((gradient + hessian.matvec(attack) / 2) * attack).flatten(1).sum(1)
        assert (rise <= penalty * (1 + 1e-12)).all()


@pytest.mark.parametrize("penalty", ["hessian", "taylor"])
@pytest.mark.parametrize("start", ["gradient", "softmax", "random"])
def test_the_passes_taken_change_nothing(penalty, start):
    """An MLP with few units, where the passes leave the pixels, against double backpropagation."""
    torch.manual_seed(0)
    model = models.mlp((1, 5, 5), CLASSES, 6, nn.Tanh).double()
    images = torch.rand(5, 1, 5, 5, dtype=torch.float64)
    labels = torch.arange(5) % CLASSES
    options = {"estimator": {"start": start, "hvps": 2}}
    options |= {"squared": False} if penalty == "hessian" else {}
    found = regularizers.build(penalty, lam=2.0, **options)(model, images, labels, seeded(0))
    hessian = InputHessian(model, images, labels)
    norm = operator_norm(hessian, start=start, hvps=2, create_graph=True, generator=seeded(0)).norm
    expected = 2 * norm + (2 * vector_norm(hessian.gradient) if penalty == "taylor" else 0)
    assert torch.allclose(found.penalty, expected, rtol=1e-12)
    gradients = (
        torch.autograd.grad(p.sum(), list(model.parameters()), materialize_grads=True)
        for p in (found.penalty, expected)
    )
    for a, b in zip(*gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


def test_default_estimator_is_one_product_from_the_gradient(model, batch):
    penalty = regularizers.build("hessian", lam=2.0, squared=False)(
        model, *batch, seeded(0)
    ).penalty
    hessian = InputHessian(model, *batch)
    unit = hessian.gradient / vector_norm(hessian.gradient).view(-1, 1, 1, 1)
    assert torch.allclose(penalty, 2 * vector_norm(hessian.matvec(unit)), rtol=1e-12)


def test_random_start_draws_from_the_generator_alone(model, batch):
    regularizer = regularizers.build(
        "hessian", lam=1.0, squared=False, estimator={"start": "random", "hvps": 2}
    )
    state = torch.get_rng_state()
    first, again, other = (regularizer(model, *batch, seeded(s)).penalty for s in (0, 0, 1))
    generator = seeded(0)
    consecutive = [regularizer(model, *batch, generator).penalty for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert torch.equal(first, consecutive[0])
    assert not torch.equal(first, other)
    assert not torch.equal(first, consecutive[1])


@pytest.mark.parametrize("name", ["none", *WEIGHTED])
def test_an_image_sees_only_itself(model, batch, name):
    images, labels = batch
    regularizer = regularizers.build("none") if name == "none" else build(name, 0.7)
    together = regularizer(model, images, labels, seeded(0))
    alone = regularizer(model, images[2:3], labels[2:3], seeded(0))
    for whole, part in zip(together, alone, strict=True):
        assert torch.allclose(whole[2:3], part, rtol=1e-10)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_penalty_is_paid_on_average_over_the_batch(model, batch, name):
    """Twice the same batch costs the same and has the same gradient."""
    images, labels = batch
    regularizer = build(name, 0.7)
    once = regularizer(model, images, labels, seeded(0))
    twice = regularizer(model, torch.cat([images] * 2), torch.cat([labels] * 2), seeded(0))
    pairs = zip(parameter_gradient(once, model), parameter_gradient(twice, model), strict=True)
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-13)


def test_unregularized(model, batch):
    objective = regularizers.build("none", lam=0)(model, *batch, seeded(0))
    expected = F.cross_entropy(model(batch[0]), batch[1])
    assert torch.allclose((objective.loss + objective.penalty).mean(), expected, rtol=1e-14)
    with pytest.raises(ValueError, match=r"lam: expected 0 for plain training, got 0\.1"):
        regularizers.build("none", lam=0.1)


def test_registry():
    assert {"none", "gradient", "hessian", "taylor"} <= set(regularizers.REGULARIZERS)
    built = regularizers.build("gradient", lam=1.5, squared=True)
    assert isinstance(built, regularizers.REGULARIZERS["gradient"])
    assert (built.lam, built.squared) == (1.5, True)


@pytest.mark.parametrize(
    ("penalty", "options", "message"),
    [
        ("hesian", {"lam": 1.0}, "penalty: expected one of none, gradient, .*, got 'hesian'"),
        ("gradient", {"lam": 1.0}, "penalty 'gradient'.*missing.*'squared'"),
        ("gradient", {"squared": True}, "penalty 'gradient'.*missing.*'lam'"),
        ("taylor", {"lam": 1.0, "squared": True}, "penalty 'taylor'.*unexpected.*'squared'"),
        ("none", {"squared": True}, "penalty 'none'.*unexpected.*'squared'"),
    ],
)
def test_bad_configurations_are_explained(penalty, options, message):
    with pytest.raises(ValueError, match=message):
        regularizers.build(penalty, **options)


def test_a_new_regularizer_needs_only_a_class(monkeypatch):
    monkeypatch.setattr(regularizers, "REGULARIZERS", dict(regularizers.REGULARIZERS))

    @regularizers.register("constant")
    class Constant:
        def __init__(self, *, lam):
            self.lam = lam

    assert regularizers.build("constant", lam=2.0).lam == 2.0
