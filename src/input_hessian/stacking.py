"""Several networks of one architecture as one: their parameters stacked, their batches in a row.

Small networks leave a device idle between its kernels.  ``C`` networks that differ in lam and seed
alone therefore train as one program: convolutions become one grouped convolution, fully connected
layers one batched matrix product.  The stack maps ``[C B, *image]`` to ``[C B, K]``: the first
``B`` rows are the first network's images.  Everything in :mod:`input_hessian.curvature` and
:mod:`input_hessian.regularizers` works image by image and so needs no change; only random numbers
must come from the generator of the row's own network (:class:`SeparateGenerators`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from input_hessian.errors import UserError
from input_hessian.taylor import Linear, layers


class Fold(nn.Module):
    """``[C B, channels, ...] -> [B, C channels, ...]``, as a grouped convolution takes it."""

    def __init__(self, networks: int):
        super().__init__()
        self.networks = networks

    def forward(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, (self.networks, -1)).transpose(0, 1).flatten(1, 2)


class Unfold(nn.Module):
    """``[B, C channels, ...] -> [C B, channels, ...]``, the inverse of :class:`Fold`."""

    def __init__(self, networks: int):
        super().__init__()
        self.networks = networks

    def forward(self, folded: Tensor) -> Tensor:
        return folded.unflatten(1, (self.networks, -1)).transpose(0, 1).flatten(0, 1)


class StackedLinear(nn.Module):
    """One fully connected layer per network, ``[C B, n] -> [C B, m]``.

    Attributes:
        weight: ``[C, m, n]``.
        bias: ``[C, m]``, or None.
    """

    def __init__(self, linears: Sequence[nn.Linear]):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([linear.weight.detach() for linear in linears]))
        if linears[0].bias is None:
            self.register_parameter("bias", None)
        else:
            self.bias = nn.Parameter(torch.stack([linear.bias.detach() for linear in linears]))

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows.unflatten(0, (len(self.weight), -1)) @ self.weight.mT
        if self.bias is not None:
            rows = rows + self.bias[:, None]
        return rows.flatten(0, 1)


class _Permutation(Linear):
    def __init__(self, module: nn.Module, inverse: nn.Module):
        super().__init__(module)
        self.apply, self.transpose = module, inverse


class _StackedFullyConnected(Linear):
    def __init__(self, module: StackedLinear):
        super().__init__(module)
        self.weight = module.weight.detach()
        self.parameters = list(module.parameters())

    def apply(self, t):
        return (self._by_network(t) @ self.weight.mT).flatten(0, 1)

    def transpose(self, c):
        return (self._by_network(c) @ self.weight).flatten(0, 1)

    def gradients(self, pairs):
        products = [self._by_network(c).mT @ self._by_network(t) for c, t in pairs]
        bias = self._by_network(pairs[0][0]).sum(1)  # the bias is added to h alone
        return [sum(products[1:], start=products[0]), bias][: len(self.parameters)]

    def _by_network(self, rows):
        return rows.unflatten(0, (len(self.weight), -1))


@layers.register
def _(module: Fold) -> list:
    return [_Permutation(module, Unfold(module.networks))]


@layers.register
def _(module: Unfold) -> list:
    return [_Permutation(module, Fold(module.networks))]


@layers.register
def _(module: StackedLinear) -> list:
    return [_StackedFullyConnected(module)]


def _stack_convolutions(convolutions: Sequence[nn.Conv2d]) -> nn.Conv2d:
    """Return one convolution in which each network is a group (or its groups are)."""
    first, count = convolutions[0], len(convolutions)
    stacked = nn.utils.skip_init(  # which draws no numbers
        nn.Conv2d,
        count * first.in_channels,
        count * first.out_channels,
        first.kernel_size,
        stride=first.stride,
        padding=first.padding,
        dilation=first.dilation,
        groups=count * first.groups,
        bias=first.bias is not None,
        padding_mode=first.padding_mode,
        dtype=first.weight.dtype,
    )
    with torch.no_grad():
        for name, parameter in stacked.named_parameters():
            parameter.copy_(torch.cat([getattr(part, name) for part in convolutions]))
    return stacked


_STACKED = {
    nn.Conv2d: _stack_convolutions,
    nn.Linear: StackedLinear,
    **dict.fromkeys((nn.Flatten, nn.Softplus, nn.ReLU, nn.Tanh), lambda modules: modules[0]),
}


def _check_stackable(networks: Sequence[nn.Sequential]) -> None:
    hint = "in networks that train together; leave out `batch_cells`"
    for network in networks:
        if not isinstance(network, nn.Sequential):
            raise UserError(f"{type(network).__name__}: expected nn.Sequential {hint}")
        # Layer by layer the same, in all but the values of parameters; each used once.
        if repr(network) != repr(networks[0]) or len(set(network)) < len(network):
            raise UserError(f"expected equal layers, each used once, {hint}, got {network}")
        for layer in network:
            if type(layer) not in _STACKED:
                raise UserError(
                    f"{type(layer).__name__}: expected one of "
                    f"{', '.join(kind.__name__ for kind in _STACKED)} {hint}, or add the layer to "
                    "stacking.py"
                )
            names = {name for name, _ in layer.named_parameters()}
            if not names <= {"weight", "bias"} or not all(
                parameter.requires_grad for parameter in layer.parameters()
            ):
                raise UserError(
                    f"{layer}: expected weight and bias, both trained, {hint}, got "
                    f"{', '.join(sorted(names))}"
                )


class StackedNetwork(nn.Sequential):
    """The networks of a sequence as one, ``[C B, *image] -> [C B, K]``.

    Args:
        networks: of the same architecture; their parameters are copied.

    Raises:
        UserError: for networks that cannot be stacked.
    """

    def __init__(self, networks: Sequence[nn.Sequential]):
        super().__init__()
        _check_stackable(networks)
        count, self._layers = len(networks), {}
        folded = False
        for i, modules in enumerate(zip(*networks, strict=True)):
            kind = type(modules[0])
            convolution = kind is nn.Conv2d
            if convolution != folded and kind in (nn.Conv2d, nn.Linear, nn.Flatten):
                self.append(Fold(count) if convolution else Unfold(count))
                folded = convolution
            self._layers[i] = len(self)
            self.append(_STACKED[kind](modules))
        self.networks = count

    @torch.no_grad()
    def network_state(self, index: int) -> dict[str, Tensor]:
        """Return a copy of the parameters of one network, as its own ``state_dict`` names them."""
        state = {}
        for i, position in self._layers.items():
            for name, value in self[position].named_parameters():
                part = value.unflatten(0, (self.networks, -1)) if value.ndim in (1, 4) else value
                state[f"{i}.{name}"] = part[index].clone()
        return state


class SeparateGenerators(TorchFunctionMode):
    """Inside, what is drawn with ``shared`` comes from every network's own generator.

    A draw of shape ``[C B, ...]`` is the concatenation of what each network alone would draw.

    Args:
        generators: one per network.
        rows: ``C B``, the images of all networks.

    Attributes:
        shared: stands for all of them.

    Raises:
        UserError: for a draw that cannot be divided so.
    """

    def __init__(self, generators: Sequence[torch.Generator], rows: int):
        super().__init__()
        self.generators, self.rows = generators, rows
        self.shared = torch.Generator(generators[0].device)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("generator") is not self.shared:
            return function(*args, **kwargs)
        shape = args[0] if len(args) == 1 and not isinstance(args[0], int) else args
        if function not in (torch.rand, torch.randn) or not shape or shape[0] != self.rows:
            raise UserError(
                "random numbers of networks that train together: expected torch.rand or "
                f"torch.randn of a shape [images, ...], here [{self.rows}, ...], got another shape "
                f"or function ({function.__name__}); leave out `batch_cells`"
            )
        shape = [self.rows // len(self.generators), *shape[1:]]
        return torch.cat(
            [function(shape, **kwargs | {"generator": own}) for own in self.generators]
        )
