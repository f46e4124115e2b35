"""Loss, input gradient and Hessian-vector products of a batch, by double backpropagation.

For one image ``x`` with label ``y`` the loss is the cross-entropy ``ell(x)`` of the logits, or
another function of logits and label; its input gradient is ``g = grad_x ell`` and its input Hessian
``H = hess_x ell`` (d x d, symmetric, indefinite).  Nothing here forms ``H``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

MatVec = Callable[..., Tensor]  # v -> H v, with the keyword create_graph
LossFunction = Callable[[Tensor, Tensor], Tensor]  # logits [B, K], labels [B] -> [B]
DTYPES = torch.float32, torch.float64
_Function = TypeVar("_Function", bound=Callable[..., Any])


def differentiating(function: _Function) -> _Function:
    """Let a function differentiate under the caller's ``no_grad`` or ``inference_mode`` too.

    Raises:
        ValueError: under autocast.
    """

    @functools.wraps(function)
    def differentiates(*args: Any, **kwargs: Any) -> Any:
        reject_autocast()
        if torch.is_grad_enabled() and not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False):  # turns gradients on as well
            return function(*args, **kwargs)

    return cast(_Function, differentiates)


def autocast_is_on() -> bool:
    """Whether autocast lowers the precision of what is computed now."""
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def reject_autocast() -> None:
    """Raise ValueError under autocast."""
    if autocast_is_on():
        raise ValueError(
            "autocast: expected none, as half precision has too few digits for second "
            "derivatives; leave the autocast context around this call"
        )


def usable(tensor: Tensor) -> Tensor:
    """Return the tensor without a graph; a copy if autograd cannot use what inference mode made."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


class InputHessian:
    """Loss, gradient and Hessian-vector products of a batch, from one network evaluation.

    The loss is summed over the batch before it is differentiated, so the batch's Hessian is block
    diagonal and each image sees only its own block.  A network that draws dropout masks is
    evaluated once, so that everything here but :meth:`difference` belongs to one and the same
    thinned network.  Attention uses PyTorch's plain kernel: the fused ones have no second
    derivative.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``, image by image.
        images: ``[B, *image]`` in pixel units, float32 or float64.
        labels: ``[B]`` class indices, int64.
        sampled: number of images, the first ones, of which gradient and products are wanted.
        loss: another loss than the cross-entropy, ``loss(logits, labels) -> [B]``, image by image.

    Attributes:
        logits: ``[B, K]``.
        loss: of each image, ``[B]``, in nats; differentiable in the parameters.
        loss_function: the argument ``loss``.
        gradient: ``g``, ``[B, *image]``, in nats per pixel unit; differentiable in the parameters.

    Raises:
        ValueError: if ``model`` couples the images of a batch (BatchNorm with batch statistics, or
            anything that makes the first image's logits depend on the second, which is tried once
            for every network), because then one image has no Hessian of its own; for images,
            parameters or logits that are neither float32 nor float64, and under autocast; for
            labels that are not class indices (on a GPU, their values are not checked), or outputs
            that are not logits of at least two classes, differentiable in the images; for a
            ``loss`` of another shape, or that couples the images (not checked on a GPU).
    """

    gradient: Tensor

    @differentiating
    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        *,
        sampled: int | None = None,
        loss: LossFunction | None = None,
    ):
        check_batch(images, labels)
        check_model(model)
        images, labels = usable(images), usable(labels)
        self._model, self._labels, self.loss_function = model, labels[:sampled], loss
        self._images = images[:sampled].requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            self._logits = self.logits = evaluated(model, self._images)
            if len(self._images) < len(images):
                self.logits = torch.cat([self._logits, evaluated(model, images[sampled:])])
        check_logits(self.logits, labels)
        if isinstance(model, nn.Module):
            _check_independence(model, images)
        self.loss = losses(self.logits, labels, loss)
        total, gradient = self.loss[:sampled].sum(), None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(
                total, self._images, create_graph=True, allow_unused=True
            )
        if loss is not None and self.logits.requires_grad and not self.loss.requires_grad:
            raise ValueError("loss: expected a function that is differentiable in the logits")
        if gradient is None:
            raise ValueError(
                "model: expected logits that are differentiable in the images, got some that are "
                "not; look in the model for detach, no_grad, NumPy or a constant output"
            )
        self.gradient = gradient

    @differentiating
    def matvec(self, vector: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return ``H v`` for every image, reverse over reverse: ``grad_x <g(x), v>``.

        Args:
            vector: ``v``, ``[B, *image]``.
            create_graph: keep the graph, so that the product can be differentiated once more.

        Returns:
            ``[B, *image]``; NaN where the loss is, even if no unit that sees the image is active.
        """
        check_shape("vector", vector, self._images.shape)
        if self.gradient.requires_grad:
            (product,) = torch.autograd.grad(
                self.gradient,
                self._images,
                grad_outputs=usable(vector),
                create_graph=create_graph,
                retain_graph=True,
                materialize_grads=True,  # the gradient of a piecewise linear loss is constant
            )
        else:
            product = torch.zeros_like(self._images)
        lost = self.loss[: len(product)].detach().isnan().view(-1, *[1] * (product.ndim - 1))
        return product.masked_fill(lost, torch.nan)

    @differentiating
    def pullback(self, cotangents: Tensor) -> Tensor:
        """Return ``J'w``, the image gradient of ``w'z``, for logit cotangents ``w``, ``[B, K]``."""
        check_shape("cotangents", cotangents, self._logits.shape)
        (vector,) = torch.autograd.grad(
            self._logits, self._images, grad_outputs=usable(cotangents), retain_graph=True
        )
        return vector

    def difference(self, step: float) -> MatVec:
        """Return ``v -> (g(x + step v) - g(x)) / step``, an approximation of :meth:`matvec`.

        It costs one more network evaluation, and training needs no third derivative.  The error
        is at most ``step ||v||^2 / 2`` times the largest third derivative along the way, so
        ``||H v||`` computed from it is no longer a lower bound.
        Source: Moosavi-Dezfooli et al., *Robustness via curvature regularization, and vice versa*,
        CVPR 2019.

        Args:
            step: length of the step along a unit vector ``v``, in pixel units.

        Raises:
            ValueError: if the network draws dropout masks: most of the difference would come from
                the two masks; for a step of so few rounding errors that most would come from these.
        """
        least = 100 * torch.finfo(self._images.dtype).eps
        if not step >= least:
            raise ValueError(
                f"difference_step: expected at least {least:.2g} pixel units for "
                f"{self._images.dtype}, got {step:g}: the difference would be rounding error"
            )
        if isinstance(self._model, nn.Module):
            _reject_dropout(self._model)

        @differentiating
        def matvec(vector: Tensor, *, create_graph: bool = False) -> Tensor:
            moved = InputHessian(
                self._model, self._images + step * vector, self._labels, loss=self.loss_function
            )
            product = (moved.gradient - self.gradient) / step
            return product if create_graph else product.detach()

        return matvec


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless images are float32 or float64 and labels are int64 ``[B]``."""
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name}: expected a torch.Tensor, got a {type(value).__name__}")
    if images.dtype not in DTYPES:
        raise ValueError(f"images: expected float32 or float64 in [0, 1], got {images.dtype}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels: expected one class index per image, int64 of shape ({len(images)},), "
            f"got {labels.dtype} of shape {tuple(labels.shape)} for a batch of images of shape "
            f"{tuple(images.shape)}"
        )


def evaluated(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the model's output; raise ValueError unless it is a tensor."""
    try:
        output = model(images)
    except RuntimeError as error:
        weights = model.parameters() if isinstance(model, nn.Module) else ()
        others = {str(weight.dtype) for weight in weights if weight.dtype != images.dtype}
        if others:
            raise ValueError(
                f"images: expected {' or '.join(sorted(others))} like the parameters of the model, "
                f"got {images.dtype}"
            ) from error
        raise
    if not isinstance(output, Tensor):
        raise ValueError(
            f"model: expected logits of shape ({len(images)}, K), got a {type(output).__name__}; "
            "wrap the model so that it returns the logits alone"
        )
    return output


def check_shape(name: str, vectors: Tensor, shape: Sequence[int]) -> None:
    """Raise ValueError unless ``vectors`` have this shape: others would be broadcast."""
    if vectors.shape != tuple(shape):
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(vectors.shape)}")


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are ``[B, K]``, ``K >= 2``, and labels lie in ``[0, K)``.

    Their precision must be at least that of float32.
    """
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits of two classes or more, ({len(labels)}, K), got an output of "
            f"shape {tuple(logits.shape)}"
        )
    if logits.dtype not in DTYPES:
        raise ValueError(f"model: expected logits in float32 or float64, got {logits.dtype}")
    # reading values from a GPU would wait for it; there, PyTorch's own assertion must do
    classes = logits.shape[1]
    if labels.device.type == "cpu" and ((labels < 0) | (labels >= classes)).any():
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(f"labels: expected 0 to {classes - 1}, got values from {low} to {high}")


def losses(logits: Tensor, labels: Tensor, loss: LossFunction | None) -> Tensor:
    """Return the loss of each image, ``[B]``: the cross-entropy, or what ``loss`` returns.

    Raises:
        ValueError: unless ``loss`` returns one value per image that depends on this image alone
            (not checked on a GPU).
    """
    if loss is None:
        return F.cross_entropy(logits, labels, reduction="none")
    found = loss(logits, labels)
    if not isinstance(found, Tensor) or found.shape != labels.shape:
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"loss: expected one value per image, of shape {tuple(labels.shape)}, got {got}; "
            "PyTorch's losses return it with reduction='none'"
        )
    if len(labels) > 1 and labels.device.type == "cpu":
        with torch.no_grad():
            error = (loss(logits[:1], labels[:1]) - found[:1]).abs()
            if (error > torch.finfo(logits.dtype).eps ** 0.5 * (1 + found[:1].abs())).any():
                raise ValueError(
                    f"loss: expected a loss image by image, but that of the first one changes by "
                    f"{error.item():.3g} with the others in the batch"
                )
    return found


def checked_logits(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """Return the logits of a batch; raise ValueError as :class:`InputHessian` does."""
    reject_autocast()
    check_batch(images, labels)
    check_model(model)
    logits = evaluated(model, images)
    check_logits(logits, labels)
    return logits


def check_model(model: Callable[[Tensor], Tensor]) -> None:
    """Raise ValueError for a module with half-precision parameters or batch statistics."""
    if not isinstance(model, nn.Module):
        return
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype not in DTYPES:
            raise ValueError(
                f"model: expected parameters in float32 or float64, as half precision has too few "
                f"digits for second derivatives, got {parameter.dtype} in {name!r}; use model.float()"
            )
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ValueError(
                f"{type(module).__name__} {name!r} normalises with the statistics of the batch, so "
                "a single image has no input Hessian of its own; use model.eval() with running "
                "statistics, or a normalisation that works image by image (GroupNorm, LayerNorm)"
            )


_INDEPENDENT: WeakKeyDictionary[nn.Module, set[torch.Size]] = WeakKeyDictionary()


def _check_independence(model: nn.Module, images: Tensor) -> None:
    """Raise ValueError if the first image's logits depend on the second image.

    Once for every network and shape of the images.  A network that draws random numbers is left
    alone: its logits differ anyway.
    """
    checked = _INDEPENDENT.setdefault(model, set())
    if len(images) < 2 or images.shape[1:] in checked:
        return
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices), sdpa_kernel(SDPBackend.MATH):
        together, again = (evaluated(model, images[:2].clone()) for _ in range(2))
        alone = evaluated(model, images[:1].clone())
    if torch.equal(together, again) and together.shape[:1] == (2,):
        error, size = (together[:1] - alone).abs().max(), together.abs().max()
        if error > torch.finfo(images.dtype).eps ** 0.5 * (1 + size):
            raise ValueError(
                f"{type(model).__name__}: expected logits image by image, but those of the first image "
                f"change by {error:.3g} with the second one in the batch, so a single image has no input "
                "Hessian of its own; look in the model for statistics over the batch dimension"
            )
    checked.add(images.shape[1:])


def _reject_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        rate = module.p if is_dropout else getattr(module, "dropout", 0.0)  # attention, recurrent
        if module.training and isinstance(rate, float) and rate > 0:
            raise ValueError(
                f"{type(module).__name__} {name!r} draws new dropout masks at every evaluation, so "
                "a finite difference of gradients means nothing; use exact products (no "
                "difference_step) or model.eval()"
            )
