"""The objectives: their values and parameter gradients against finite differences of the truth."""

from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import ARCHITECTURES, CLASSES, mlp, seeded
from helpers.oracles import true_derivatives, true_jacobian
from torch import nn
from torch.distributions import Categorical, kl_divergence

from input_hessian import (
    AdversarialTraining,
    CurePenalty,
    Estimator,
    GradientPenalty,
    HessianPenalty,
    InputHessian,
    JacobianPenalty,
    NoPenalty,
    TaylorPenalty,
    Trades,
    operator_norm,
)
from input_hessian.estimators import softmax_eigenvector
from input_hessian.vectors import vector_norm

SHAPE = (1, 3, 3)
CONVERGED = Estimator("lanczos", "gradient", 10)  # one product more than there are pixels

# every penalty without randomness, ready to be built with any lam
EXACT = {
    "gradient": {"squared": False},
    "gradient squared": {"squared": True},
    "hessian": {"squared": False, "estimator": CONVERGED},
    "hessian squared": {"squared": True, "estimator": CONVERGED},
    "taylor": {"estimator": CONVERGED},
    "cure": {"step": 0.3},
}
# those that draw random numbers whatever their options
RANDOM = {
    "jacobian": {"n_proj": 2},
    "adversarial linf": {"norm": "linf", "steps": 3},
    "adversarial l2": {"norm": "l2", "steps": 3},
    "trades linf": {"norm": "linf", "steps": 3},
    "trades l2": {"norm": "l2", "steps": 3},
}


@pytest.fixture(params=["mlp", "cnn"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ARCHITECTURES[request.param](SHAPE, CLASSES, 6, nn.Tanh)
        with torch.no_grad():
            network[-1].weight *= 5  # confident enough for a Hessian of both signs
        return network.double()


@pytest.fixture
def batch():
    generator = seeded(1)
    images = torch.rand(5, *SHAPE, dtype=torch.float64, generator=generator)
    return images, torch.randint(CLASSES, (5,), generator=generator)


PENALTIES = {
    "gradient": GradientPenalty,
    "hessian": HessianPenalty,
    "taylor": TaylorPenalty,
    "cure": CurePenalty,
    "jacobian": JacobianPenalty,
    "adversarial": AdversarialTraining,
    "trades": Trades,
}


def build(name, lam):
    return PENALTIES[name.split()[0]](lam=lam, **(EXACT | RANDOM)[name])


def true_penalty(name, lam, model, images, labels):
    gradients, hessians = true_derivatives(model, images, labels)
    gradient, hessian = gradients.norm(dim=1), torch.linalg.eigvalsh(hessians).abs().amax(1)
    if name == "cure":
        step = 0.3 * gradients.sign() / gradients.sign().norm(dim=1, keepdim=True)
        moved, _ = true_derivatives(model, images + step.view_as(images), labels)
        return lam * (moved - gradients).square().sum(1)
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


@pytest.mark.parametrize("name", EXACT)
def test_value(model, batch, name):
    objective = build(name, 0.7)(model, *batch, seeded(0))
    expected = true_penalty(name, 0.7, model, *batch)
    assert objective.penalty.shape == objective.loss.shape == (5,)
    assert torch.allclose(objective.penalty, expected, rtol=1e-10)
    assert torch.equal(objective.logits, model(batch[0]))
    loss = F.cross_entropy(objective.logits, batch[1], reduction="none")
    assert torch.allclose(objective.loss, loss, rtol=1e-14)


@pytest.mark.parametrize("name", EXACT)
def test_parameter_gradient_is_that_of_the_true_objective(model, batch, name):
    images, labels = batch

    def truth(network):
        loss = F.cross_entropy(network(images), labels, reduction="none")
        return (loss + true_penalty(name, 0.7, network, images, labels)).mean().item()

    assert_derivative_of(truth, build(name, 0.7)(model, *batch, seeded(0)), model)


def assert_derivative_of(truth, objective, model):
    """Compare the objective's parameter gradient with differences of ``truth(network)``."""
    gradients = parameter_gradient(objective, model)
    state = {key: value.detach() for key, value in model.named_parameters()}
    generator = seeded(2)
    step, eps = 1e-5, 2.0**-52
    for _ in range(2):
        direction = {
            key: torch.randn(value.shape, dtype=value.dtype, generator=generator)
            for key, value in state.items()
        }

        def value(distance, direction=direction):
            moved = {key: state[key] + distance * direction[key] for key in state}
            return truth(_Functional(model, moved))

        near, far = ((value(h) - value(-h)) / (2 * h) for h in (step, 2 * step))
        # the difference of the two is three times the truncation error; the rest is rounding
        error = abs(far - near) + 100 * eps * value(0) / step
        assert error < 1e-4 * abs(near)
        pairs = zip(gradients, direction.values(), strict=True)
        assert sum((g * d).sum().item() for g, d in pairs) == pytest.approx(near, abs=error)


class _Functional:
    def __init__(self, model, state):
        self.model, self.state = model, state

    def __call__(self, images):
        return torch.func.functional_call(self.model, self.state, (images,))


@pytest.mark.parametrize("name", [*EXACT, *RANDOM])
def test_lam_zero_is_plain_training(model, batch, name):
    plain = NoPenalty()(model, *batch, seeded(0))
    other = build(name, 0.0)(model, *batch, seeded(0))
    assert torch.allclose(other.loss, plain.loss, rtol=1e-14)
    assert torch.equal(other.penalty, torch.zeros(5, dtype=torch.float64))
    for a, b in zip(
        parameter_gradient(other, model), parameter_gradient(plain, model), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["gradient", "hessian", "hessian squared", "taylor"])
def test_the_norms_come_with_the_objective(model, batch, name):
    objective = build(name, 0.7)(model, *batch, seeded(0))
    found = {"gradient": objective.gradient_norm, "hessian": objective.hessian_norm}
    if name == "gradient":
        assert found.pop("hessian") is None
    for norm, value in found.items():
        assert torch.allclose(value, true_penalty(norm, 1, model, *batch), rtol=1e-10)
        alone = build(norm, 1)(model, *batch, seeded(0)).penalty
        for a, b in zip(
            torch.autograd.grad(value.sum(), list(model.parameters()), retain_graph=True),
            torch.autograd.grad(alone.sum(), list(model.parameters())),
            strict=True,
        ):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["hessian", "taylor"])
def test_of_an_image_that_was_not_drawn_no_norm_is_known(model, batch, name):
    whole = build(name, 0.7)(model, *batch, seeded(0))
    part = sampled(name, 0.4)(model, *batch, seeded(0))
    drawn = part.penalty > 0
    for of_part, of_whole in zip(part[3:], whole[3:], strict=True):
        assert torch.equal(of_part.isnan(), ~drawn)
        assert torch.allclose(of_part[drawn], of_whole[drawn], rtol=1e-12)
        gradients = torch.autograd.grad(
            of_part.nanmean(), list(model.parameters()), retain_graph=True
        )
        assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_generator_pytorchs_own_is_drawn_from(model, batch, name):
    regularizer, found = build(name, 0.3), []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(regularizer(model, *batch).penalty)
    assert torch.equal(*found)
    assert not torch.equal(found[0], regularizer(model, *batch).penalty)


@pytest.mark.parametrize("lam", [0.3, 2.0])
def test_taylor_is_the_sum_of_its_parts(model, batch, lam):
    estimator = Estimator("power", "gradient", 2)
    taylor = TaylorPenalty(lam=lam, estimator=estimator)
    gradient = GradientPenalty(lam=lam, squared=False)
    hessian = HessianPenalty(lam=lam**2 / 2, squared=False, estimator=estimator)
    whole, first, second = (r(model, *batch, seeded(0)) for r in (taylor, gradient, hessian))
    assert torch.allclose(whole.penalty, first.penalty + second.penalty, rtol=1e-12)


def test_taylor_bounds_the_quadratic_model_of_the_loss(model, batch):
    """No l2 attack of size lam raises ``ell + g'd + d'Hd/2`` by more than the penalty."""
    lam = 0.5
    penalty = build("taylor", lam)(model, *batch, seeded(0)).penalty.detach()
    hessian = InputHessian(model, *batch)
    gradient = hessian.gradient.detach()
    candidates = [gradient, -gradient, operator_norm(hessian, **asdict(CONVERGED)).vector]
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
    model = mlp((1, 5, 5), CLASSES, 6, nn.Tanh).double()
    images = torch.rand(5, 1, 5, 5, dtype=torch.float64)
    labels = torch.arange(5) % CLASSES
    found = PENALTIES[penalty](lam=2.0, estimator=Estimator(start=start, hvps=2))(
        model, images, labels, seeded(0)
    )
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


def test_the_default_estimator_spends_two_products_from_the_softmax_start(model, batch):
    penalty = HessianPenalty(lam=2.0)(model, *batch, seeded(0)).penalty
    hessian = InputHessian(model, *batch)
    first = hessian.matvec(hessian.pullback(softmax_eigenvector(hessian.logits)))
    unit = first / vector_norm(first).view(-1, 1, 1, 1)
    assert torch.allclose(penalty, 2 * vector_norm(hessian.matvec(unit)), rtol=1e-12)
    assert torch.allclose(penalty, 2 * operator_norm(hessian).norm, rtol=1e-12)


def test_random_start_draws_from_the_generator_alone(model, batch):
    regularizer = HessianPenalty(lam=1.0, squared=False, estimator=Estimator(start="random"))
    state = torch.get_rng_state()
    first, again, other = (regularizer(model, *batch, seeded(s)).penalty for s in (0, 0, 1))
    generator = seeded(0)
    consecutive = [regularizer(model, *batch, generator).penalty for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert torch.equal(first, consecutive[0])
    assert not torch.equal(first, other)
    assert not torch.equal(first, consecutive[1])


@pytest.mark.parametrize("name", ["none", *EXACT])
def test_an_image_sees_only_itself(model, batch, name):
    images, labels = batch
    regularizer = NoPenalty() if name == "none" else build(name, 0.7)
    together = regularizer(model, images, labels, seeded(0))
    alone = regularizer(model, images[2:3], labels[2:3], seeded(0))
    for whole, part in zip(together, alone, strict=True):
        assert (whole is None) == (part is None)
        assert whole is None or torch.allclose(whole[2:3], part, rtol=1e-10)


@pytest.mark.parametrize("name", EXACT)
def test_a_penalty_is_paid_on_average_over_the_batch(model, batch, name):
    """Twice the same batch costs the same and has the same gradient."""
    images, labels = batch
    regularizer = build(name, 0.7)
    once = regularizer(model, images, labels, seeded(0))
    twice = regularizer(model, torch.cat([images] * 2), torch.cat([labels] * 2), seeded(0))
    pairs = zip(parameter_gradient(once, model), parameter_gradient(twice, model), strict=True)
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-13)


def softmax_regression(weight):
    """``z = W x + b`` without bias, so that every derivative has a closed form."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    linear.weight = nn.Parameter(weight)
    return nn.Sequential(nn.Flatten(), linear)


def test_cure_of_softmax_regression(batch):
    """There ``g = W'(p - y)``, so that the change of the gradient is that of ``W'p``."""
    images, labels = batch
    weight = torch.randn(CLASSES, 9, dtype=torch.float64, generator=seeded(4))
    p = (images.flatten(1) @ weight.mT).softmax(1)
    z = ((p - F.one_hot(labels, CLASSES)) @ weight).sign() / 3  # nine pixels, none of them 0
    moved = ((images.flatten(1) + 0.5 * z) @ weight.mT).softmax(1)
    objective = CurePenalty(lam=2.0, step=0.5)(
        softmax_regression(weight), images, labels, seeded(0)
    )
    expected = 2 * ((moved - p) @ weight).square().sum(1)
    assert torch.allclose(objective.penalty, expected, rtol=1e-12)


def test_cure_tends_to_the_hessian_along_the_sign_of_the_gradient(model, batch):
    gradients, hessians = true_derivatives(model, *batch)
    z = gradients.sign() / gradients.sign().norm(dim=1, keepdim=True)
    limit = torch.einsum("bij,bj->bi", hessians, z).square().sum(1)
    errors = []
    for step in (1e-3, 1e-4):
        penalty = CurePenalty(lam=1.0, step=step)(model, *batch, seeded(0)).penalty
        errors.append((penalty / step**2 - limit).detach())
    assert (errors[1].abs() < 1e-3 * limit).all()
    assert torch.allclose(errors[0], 10 * errors[1], rtol=0.05)  # of first order in the step


@pytest.mark.parametrize("n_proj", [1, 3])
def test_jacobian_projects_on_random_unit_vectors(model, batch, n_proj):
    images, labels = batch
    generator = seeded(0)
    normal = [
        torch.randn(5, CLASSES, dtype=torch.float64, generator=generator) for _ in range(n_proj)
    ]
    units = torch.stack(normal, 1)
    units /= units.norm(dim=2, keepdim=True)

    def penalty(network):
        pulled = torch.einsum("bpk,bkd->bpd", units, true_jacobian(network, images))
        return 0.7 / 2 * CLASSES / n_proj * pulled.square().sum((1, 2))

    def truth(network):
        loss = F.cross_entropy(network(images), labels, reduction="none")
        return (loss + penalty(network)).mean().item()

    regularizer = JacobianPenalty(lam=0.7, n_proj=n_proj)
    objective = regularizer(model, images, labels, seeded(0))
    assert torch.allclose(objective.penalty, penalty(model), rtol=1e-12)
    assert torch.equal(objective.logits, model(images))
    assert_derivative_of(truth, objective, model)


def test_jacobian_estimate_is_unbiased(model, batch):
    images, labels = (part[:1].repeat_interleave(4000, 0) for part in batch)
    penalty = build("jacobian", 2.0)(model, images, labels, seeded(0)).penalty.detach()
    error = penalty.std() / len(images) ** 0.5
    expected = true_jacobian(model, images[:1]).square().sum()
    assert 0 < error < 0.02 * expected
    assert abs(penalty.mean() - expected) < 3 * error


def test_jacobian_with_orthogonal_rows_of_one_length_needs_no_luck(batch):
    """Then all projections are alike, and each is the whole norm."""
    rows = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64, generator=seeded(4))).Q
    model = softmax_regression(3 * rows[:CLASSES])
    penalty = JacobianPenalty(lam=0.1, n_proj=1)(model, *batch, seeded(0)).penalty
    expected = torch.full((5,), 0.1 / 2 * 9 * CLASSES, dtype=torch.float64)
    assert torch.allclose(penalty, expected, rtol=1e-12)


class _Watched:
    """A network that keeps the images it is shown."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, images):
        self.seen.append(images.detach().clone())
        return self.model(images)


def sizes(perturbations, norm):
    order = {"linf": float("inf"), "l2": 2}[norm]
    return torch.linalg.vector_norm(perturbations.flatten(1), ord=order, dim=1)


ATTACKS = [("linf", 0.3), ("l2", 0.8)]


@pytest.mark.parametrize("penalty", [AdversarialTraining, Trades])
@pytest.mark.parametrize(("norm", "lam"), ATTACKS)
def test_every_image_of_the_attack_is_in_ball_and_range(model, batch, penalty, norm, lam):
    watched = _Watched(model)
    penalty(lam=lam, norm=norm, steps=5)(watched, *batch, seeded(0))
    clean, *iterates = watched.seen
    assert torch.equal(clean, batch[0])
    assert len(iterates) == 5 + 1
    for moved in iterates:
        assert (moved >= 0).all()
        assert (moved <= 1).all()
        assert (sizes(moved - clean, norm) <= lam * (1 + 1e-9)).all()
    assert (
        torch.stack([sizes(moved - clean, norm) for moved in iterates]).amax(0) > 0.6 * lam
    ).all()
    assert any((moved == 0).any() for moved in iterates)  # the range was in the way
    assert any((moved == 1).any() for moved in iterates)


@pytest.mark.parametrize(("norm", "lam"), ATTACKS)
def test_adversarial_objective_is_the_loss_at_the_end_of_the_attack(model, batch, norm, lam):
    images, labels = batch
    regularizer = AdversarialTraining(lam=lam, norm=norm, steps=5)
    watched = _Watched(model)
    objective = regularizer(watched, images, labels, seeded(0))
    attacked = watched.seen[-1]
    total = objective.loss + objective.penalty
    expected = F.cross_entropy(model(attacked), labels, reduction="none")
    assert torch.allclose(total, expected, rtol=1e-13)
    plain = NoPenalty()(model, images, labels, seeded(0))
    assert torch.equal(objective.loss, plain.loss)
    assert torch.equal(objective.logits, plain.logits)
    assert not objective.loss.requires_grad
    assert_derivative_of(
        lambda network: F.cross_entropy(network(attacked), labels).item(), objective, model
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    # layer by layer, where the network allows it, the attack is the same
    assert torch.allclose(
        regularizer(model, images, labels, seeded(0)).penalty, objective.penalty, rtol=1e-9
    )


def two_classes():
    """A linear model, and how its logit margin depends on the image."""
    weight = torch.randn(2, 9, dtype=torch.float64, generator=seeded(4))
    return softmax_regression(weight), weight[0] - weight[1]


@pytest.mark.parametrize("lam", [0.05, 0.3])
def test_linf_attack_on_two_linear_classes_is_the_worst_there_is(batch, lam):
    """Every pixel goes as far as ball and range allow, against the margin."""
    images, labels = batch[0], batch[1] % 2
    model, normal = two_classes()
    push = -torch.where(labels == 0, 1, -1)[:, None] * normal
    flat = images.flatten(1)
    worst = torch.where(push > 0, (flat + lam).clamp(max=1), (flat - lam).clamp(min=0))
    regularizer = AdversarialTraining(lam=lam, norm="linf", steps=4)
    objective = regularizer(model, images, labels, seeded(0))
    expected = F.softplus((push * worst).sum(1))
    assert torch.allclose(objective.loss + objective.penalty, expected, rtol=1e-12)


def test_l2_attack_on_two_linear_classes_nears_the_worst_there_is(batch):
    images, labels, lam = 0.4 + 0.2 * batch[0], batch[1] % 2, 0.3
    model, normal = two_classes()
    margin = torch.where(labels == 0, 1, -1) * (images.flatten(1) @ normal)
    objective = AdversarialTraining(lam=lam, norm="l2", steps=7)(model, images, labels, seeded(0))
    total = objective.loss + objective.penalty
    reached = (margin + total.expm1().log()) / (lam * normal.norm())  # of the largest fall
    assert (reached <= 1 + 1e-9).all()
    # from wherever it starts, seven steps of 2.5/7 radii end at 0.95 of it or more
    assert (reached > 0.949).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attack_starts_uniformly_in_the_ball(norm):
    images, lam = torch.full((2000, *SHAPE), 0.5, dtype=torch.float64), 0.4
    watched = _Watched(two_classes()[0])
    labels = torch.zeros(len(images), dtype=torch.int64)
    AdversarialTraining(lam=lam, norm=norm, steps=1)(watched, images, labels, seeded(0))
    start = (watched.seen[1] - images).flatten(1) / lam
    volume = (sizes(start, norm) ** 9).sort().values  # of the ball through each start: uniform
    uniform = (torch.arange(len(images)) + 0.5) / len(images)
    assert (volume - uniform).abs().max() < 1.63 / len(images) ** 0.5  # Kolmogorov-Smirnov, 1%
    direction = start / start.norm(dim=1, keepdim=True)
    covariance = direction.mT @ direction / len(images)
    assert torch.allclose(covariance, torch.eye(9, dtype=torch.float64) / 9, atol=0.02)
    assert (direction.mean(0).abs() < 0.03).all()


def divergence(logits, moved):
    """KL of the second prediction from the first, per image, as PyTorch's distributions have it."""
    return kl_divergence(Categorical(logits=logits), Categorical(logits=moved))


@pytest.mark.parametrize(("norm", "lam"), ATTACKS)
@pytest.mark.parametrize("options", [{}, {"weight": 0.5}])
def test_trades_objective_is_the_divergence_at_the_end_of_the_attack(
    model, batch, norm, lam, options
):
    """Its parameter gradient takes both predictions, and the attacked image as a constant."""
    images, labels = batch
    weight = options.get("weight", 6)
    watched = _Watched(model)
    objective = Trades(lam=lam, norm=norm, steps=5, **options)(watched, images, labels, seeded(0))
    clean, start, *_, attacked = watched.seen
    assert torch.equal(clean, images)
    plain = NoPenalty()(model, images, labels, seeded(0))
    assert torch.equal(objective.loss, plain.loss)
    assert torch.equal(objective.logits, plain.logits)
    expected = weight * divergence(plain.logits, model(attacked))
    assert (expected > weight * divergence(plain.logits, model(start))).all()
    assert torch.allclose(objective.penalty, expected, rtol=1e-12)

    def truth(network):
        logits = network(images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return (loss + weight * divergence(logits, network(attacked))).mean().item()

    assert_derivative_of(truth, objective, model)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("norm", "lam"), ATTACKS)
def test_trades_attack_beats_random_points_of_the_ball(model, batch, norm, lam):
    """At the ball's edge, where the divergence is large: corners of the cube, or the sphere."""
    images, labels = batch
    random = torch.randn(300, *images.shape, dtype=torch.float64, generator=seeded(5)).flatten(2)
    unit = random.sign() if norm == "linf" else F.normalize(random, dim=2)
    points = (images + lam * unit.view(300, *images.shape)).clamp(0, 1)
    others = divergence(model(images).repeat(300, 1), model(points.flatten(0, 1))).view(300, 5)
    attack, generator = Trades(lam=lam, norm=norm, steps=10, weight=1), seeded(0)
    found = torch.stack([attack(model, images, labels, generator).penalty for _ in range(8)])
    assert (found.amax(0) > (1 - 1e-9) * others.amax(0)).all()
    # From some starts it climbs the lower of two hills.
    assert (found.mean(0) > others.quantile(0.9, 0)).all()


def test_trades_attack_in_a_small_ball_climbs_the_fisher_information(model, batch):
    """There it is ``d'Fd / 2`` with ``F = J'(diag p - pp')J``, convex: no step makes it smaller."""
    images, labels, lam = 0.4 + 0.2 * batch[0], batch[1], 1e-4
    logits = model(images)
    p, jacobian = logits.softmax(1), true_jacobian(model, images)
    fisher = jacobian.mT @ (torch.diag_embed(p) - p[:, :, None] * p[:, None]) @ jacobian
    watched = _Watched(model)
    attack = Trades(lam=lam, norm="l2", steps=10, weight=1)
    penalty = attack(watched, images, labels, seeded(0)).penalty
    _, *iterates = watched.seen
    d = torch.stack(iterates).sub(images).flatten(2)
    expected = torch.einsum("sbi,bij,sbj->sb", d, fisher, d) / 2
    assert torch.allclose(penalty, expected[-1], rtol=1e-2)
    assert (expected.diff(dim=0) > -1e-9 * expected[1:]).all()
    of_largest = expected / (lam**2 * torch.linalg.eigvalsh(fisher)[:, -1] / 2)
    assert (of_largest[-1] > 0.8).all()
    assert (of_largest[-1] <= 1 + 1e-9).all()
    assert of_largest[0].mean() < 0.5


@pytest.mark.parametrize("lam", [0.05, 0.3])
def test_trades_attack_on_two_linear_classes_goes_to_the_end_of_its_side(batch, lam):
    """The divergence grows with the margin's distance to that of the image, on both sides of it."""
    images, labels = batch[0], batch[1] % 2
    model, normal = two_classes()
    flat = images.flatten(1)
    watched = _Watched(model)
    penalty = Trades(lam=lam, norm="linf", steps=4, weight=1)(
        watched, images, labels, seeded(0)
    ).penalty
    side = ((watched.seen[1].flatten(1) - flat) @ normal).sign()
    assert side.unique().tolist() == [-1, 1]
    push = side[:, None] * normal
    end = torch.where(push > 0, (flat + lam).clamp(max=1), (flat - lam).clamp(min=0))
    p, q = ((x @ normal).sigmoid() for x in (flat, end))
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert torch.allclose(penalty, expected, rtol=1e-10)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["adversarial linf", "adversarial l2", "trades linf", "trades l2"])
def test_the_attack_is_the_same_in_every_context(model, batch, name, context):
    expected = build(name, 0.3)(model, *batch, seeded(0))
    with context():
        found = build(name, 0.3)(model, *(field.clone() for field in batch), seeded(0))
    for value, right in zip(found[:3], expected[:3], strict=True):
        assert torch.allclose(value, right, rtol=1e-12)


def sampled(name, fraction):
    return replace(build(name, 0.7), fraction=fraction)


@pytest.mark.parametrize("name", EXACT)
def test_a_fraction_of_the_batch_pays_for_all(model, batch, name):
    """Two of five images are drawn and count 2.5 times; every image has its loss."""
    whole = build(name, 0.7)(model, *batch, seeded(0))
    part = sampled(name, 0.4)(model, *batch, seeded(0))
    drawn = part.penalty != 0
    assert drawn.sum() == 2
    assert torch.allclose(part.penalty, 2.5 * whole.penalty * drawn, rtol=1e-12)
    assert torch.allclose(part.loss, whole.loss, rtol=1e-12)
    assert torch.allclose(part.logits, whole.logits, rtol=1e-12)


@pytest.mark.parametrize("name", EXACT)
def test_the_gradient_on_a_fraction_is_unbiased(model, batch, name):
    """Over all ten samples of two images, its mean is the gradient of the whole objective."""
    expected = parameter_gradient(build(name, 0.7)(model, *batch, seeded(0)), model)
    of_sample = {}
    for seed in range(100):
        part = sampled(name, 0.4)(model, *batch, seeded(seed))
        drawn = tuple(part.penalty.nonzero().flatten().tolist())
        if drawn not in of_sample:
            of_sample[drawn] = parameter_gradient(part, model)
        if len(of_sample) == 10:
            break
    assert len(of_sample) == 10
    for value, *found in zip(expected, *of_sample.values(), strict=True):
        mean = torch.stack(found).mean(0)
        assert torch.allclose(mean, value, rtol=1e-10, atol=1e-12)


def test_every_image_is_drawn_equally_often(model, batch):
    """250 draws of two of five images: each is drawn 100 times, with a deviation of 7.7."""
    generator = seeded(0)
    penalty = sampled("gradient", 0.4)
    counts = sum((penalty(model, *batch, generator).penalty > 0).long() for _ in range(250))
    assert (counts - 100).abs().max() < 4 * 7.7


def test_jacobian_on_a_fraction_projects_the_drawn_images_alone(model, batch):
    images, labels = batch
    penalty = JacobianPenalty(lam=2.0, n_proj=400, fraction=0.4)
    part = penalty(model, images, labels, seeded(0))
    expected = 2.5 * true_jacobian(model, images).square().flatten(1).sum(1)
    drawn = part.penalty != 0
    assert drawn.sum() == 2
    assert torch.allclose(part.penalty[drawn], expected[drawn], rtol=0.2)
    assert torch.allclose(part.logits, model(images), rtol=1e-12)


@pytest.mark.parametrize(("images", "fraction", "drawn"), [(5, 0.01, 1), (1, 0.5, 1), (3, 1, 3)])
def test_at_least_one_image_is_drawn(model, batch, images, fraction, drawn):
    part = sampled("gradient", fraction)(model, *(field[:images] for field in batch), seeded(0))
    assert (part.penalty > 0).sum() == drawn


def test_without_a_fraction_nothing_is_drawn(model, batch):
    generator = seeded(0)
    build("hessian", 0.7)(model, *batch, generator)
    assert torch.equal(generator.get_state(), seeded(0).get_state())


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_come_from_the_generator_alone(model, batch, name):
    regularizer = build(name, 0.3)
    state = torch.get_rng_state()
    first, again, other = (regularizer(model, *batch, seeded(s)).penalty for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", RANDOM)
def test_other_images_do_not_matter(model, batch, name):
    """With the same draws; a smaller batch would draw others."""
    images, labels = batch
    others = images.flip(0).clone(), labels.flip(0).clone()  # the middle image keeps its place
    regularizer = build(name, 0.3)
    first, second = (regularizer(model, *part, seeded(0)) for part in (batch, others))
    for a, b in zip(first[:3], second[:3], strict=True):
        assert torch.allclose(a[2], b[2], rtol=1e-12)
        assert not torch.allclose(a[0], b[0], rtol=1e-3)


@pytest.mark.parametrize("name", [*EXACT, *RANDOM])
def test_images_coupled_by_batch_statistics_are_refused(batch, name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Linear(6, CLASSES))
    with pytest.raises(ValueError, match="BatchNorm1d '2' normalises with the statistics"):
        build(name, 0.3)(model.double(), *batch, seeded(0))


@pytest.mark.parametrize("name", [*EXACT, *RANDOM])
def test_a_value_that_is_not_finite_shows(model, batch, name):
    with torch.no_grad():
        model[-1].weight[0, 0] = float("nan")
    assert build(name, 0.3)(model, *batch, seeded(0)).penalty.isnan().all()


@pytest.mark.parametrize("name", [*EXACT, *RANDOM])
def test_no_images_no_objective(model, batch, name):
    images, labels = batch
    objective = build(name, 0.3)(model, images[:0], labels[:0], seeded(0))
    assert objective.penalty.shape == objective.loss.shape == (0,)


def test_unregularized(model, batch):
    objective = NoPenalty(lam=0)(model, *batch, seeded(0))
    expected = F.cross_entropy(model(batch[0]), batch[1])
    assert torch.allclose((objective.loss + objective.penalty).mean(), expected, rtol=1e-14)
    with pytest.raises(ValueError, match=r"lam: expected 0 for plain training, got 0\.1"):
        NoPenalty(lam=0.1)


@pytest.mark.parametrize(
    ("penalty", "options", "message"),
    [
        (GradientPenalty, {"lam": -1.0}, "lam: expected a finite number, at least 0, got -1.0"),
        (HessianPenalty, {"lam": float("nan")}, "at least 0, got nan"),
        (CurePenalty, {"lam": float("inf")}, "at least 0, got inf"),
        (CurePenalty, {"lam": 1.0, "step": 0}, "step: expected a positive, finite length, got 0"),
        (CurePenalty, {"lam": 1.0, "step": float("inf")}, "finite length, got inf"),
        (JacobianPenalty, {"lam": 1.0, "n_proj": 0}, "n_proj: expected at least 1 projection"),
        (HessianPenalty, {"lam": 1.0, "fraction": 0.0}, "fraction: expected above 0, at most 1"),
        (
            HessianPenalty,
            {"lam": 1.0, "estimator": {"hvps": 3}},
            "estimator: expected an Estimator",
        ),
        (TaylorPenalty, {"lam": 1.0, "estimator": "lanczos"}, "estimator: expected an Estimator"),
        (JacobianPenalty, {"lam": 1.0, "fraction": 1.1}, "at most 1, got 1.1"),
        (GradientPenalty, {"lam": 1.0, "fraction": float("nan")}, "at most 1, got nan"),
        (HessianPenalty, {"lam": 1.0, "loss": "hinge"}, "loss: expected a function of .* 'hinge'"),
        (AdversarialTraining, {"lam": 1.0, "norm": "l1"}, "norm: expected linf or l2, got 'l1'"),
        (
            AdversarialTraining,
            {"lam": 1.0, "norm": "l2", "steps": 0},
            "steps: expected at least 1, got 0",
        ),
        (Trades, {"lam": 1.0, "norm": "l1"}, "norm: expected linf or l2, got 'l1'"),
        (Trades, {"lam": 1.0, "norm": "l2", "steps": 0}, "steps: expected at least 1, got 0"),
        (Trades, {"lam": -1.0, "norm": "l2"}, "lam: expected a finite number, at least 0"),
        (
            Trades,
            {"lam": 1.0, "norm": "l2", "weight": 0.0},
            r"weight: expected a finite number greater than 0, got 0\.0",
        ),
        (Trades, {"lam": 1.0, "norm": "l2", "weight": float("nan")}, "greater than 0, got nan"),
        (Trades, {"lam": 1.0, "norm": "l2", "weight": float("inf")}, "greater than 0, got inf"),
    ],
)
def test_bad_options_are_explained(penalty, options, message):
    with pytest.raises(ValueError, match=message):
        penalty(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newton"}, "method: expected one of power, lanczos, ascent, got 'newton'"),
        ({"hvps": 0}, "hvps: expected at least 1 Hessian-vector product, got 0"),
        ({"method": "ascent"}, "step_size: needed by ascent alone, got None with ascent"),
        ({"step_size": 1.0}, "step_size: needed by ascent alone, got 1.0 with power"),
        ({"hvps": 1.5}, "hvps: expected at least 1 Hessian-vector product, got 1.5"),
        ({"method": "ascent", "step_size": 0.0}, "expected a finite number above 0, got 0.0"),
        ({"method": "ascent", "step_size": float("inf")}, "number above 0, got inf"),
    ],
)
def test_bad_estimators_are_explained(options, message):
    with pytest.raises(ValueError, match=message):
        Estimator(**options)


def test_a_random_start_is_drawn_in_pixels_not_in_the_row_space():
    """Most of a random direction lies outside the first layer's rows; the penalty must not skip it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 4), torch.nn.Softplus(), torch.nn.Linear(4, 3)
    ).double()
    images, labels = torch.rand(5, 1, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    estimator = Estimator(method="ascent", start="random", hvps=3, step_size=1.0)
    regularizer = HessianPenalty(lam=1.0, estimator=estimator)
    penalty = regularizer(model, images, labels, torch.Generator().manual_seed(1)).penalty
    in_pixels = operator_norm(
        InputHessian(model, images, labels),
        generator=torch.Generator().manual_seed(1),
        **asdict(estimator),
    )
    assert torch.allclose(penalty, in_pixels.norm, rtol=1e-9)
