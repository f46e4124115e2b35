"""Small networks and batches that the tests share."""

import math

import torch
from torch import nn

CLASSES = 4
ACTIVATIONS = {
    "softplus": lambda: nn.Softplus(10),
    "tanh": nn.Tanh,
    "gelu": lambda: nn.GELU("tanh"),  # by double backpropagation
    "relu": nn.ReLU,
}


def cnn(shape, classes, width, activation):
    """The layers of input_hessian.experiment.models.cnn, with any activation."""
    channels, *sides = shape
    pixels = math.prod(math.ceil(math.ceil(side / 2) / 2) for side in sides)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        activation(),
        nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
        activation(),
        nn.Flatten(),
        nn.Linear(2 * width * pixels, 100),
        activation(),
        nn.Linear(100, classes),
    )


def mlp(shape, classes, width, activation):
    """The layers of input_hessian.experiment.models.mlp, with any activation."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, classes),
    )


ARCHITECTURES = {"cnn": cnn, "mlp": mlp}


def network(
    architecture="mlp", activation="softplus", shape=(1, 4, 4), dtype=torch.float64, seed=0
):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = ARCHITECTURES[architecture]
        return build(shape, CLASSES, 6, ACTIVATIONS.get(activation, activation)).to(dtype)


def batch_of(size, shape=(1, 4, 4), dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, *shape, dtype=dtype, generator=generator)
    return images, torch.randint(CLASSES, (size,), generator=generator)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Scaling(nn.Module):
    def __init__(self, factors):
        super().__init__()
        self.factors = factors

    def forward(self, features):
        return features * self.factors


class Attention(nn.Module):
    """Rows of 4x4 images attend to each other."""

    def __init__(self, weights, dropout=0.0):
        super().__init__()
        self.weights = weights  # without them, PyTorch picks a fused kernel
        self.embedding = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, dropout, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images):
        rows = self.embedding(images.flatten(0, -3))
        mixed, _ = self.attention(rows, rows, rows, need_weights=self.weights)
        return self.head((rows + mixed).square().mean(1))
