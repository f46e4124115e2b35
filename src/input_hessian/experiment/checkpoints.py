"""Networks that were trained elsewhere: parameters in a file, and code that makes the network."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from input_hessian.experiment.attacks import clean_logits
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.exported import SUFFIX
from input_hessian.experiment.models import build


def load_checkpoint(
    path: str | Path,
    *,
    architecture: str = "",
    image_shape: Sequence[int],
    classes: int,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the network of a file, frozen and in evaluation mode, once it has passed a check.

    Args:
        path: a state dict, in a safetensors file (``.safetensors``) or as ``torch.save`` writes it (read
            with ``weights_only=True``); or an exported program (``.pt2``), as ``torch.export.save``
            writes it, whose loading may run code.
        architecture: what makes the network, as for :func:`input_hessian.experiment.models.build`;
            nothing for an exported program.
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.
        options: keywords of what makes the network.

    Raises:
        UserError: if the file or what makes the network is missing, or they do not fit each other;
            or as :func:`check_network`, on random images.
    """
    architecture, exported = made_by(path, architecture), Path(path).suffix == SUFFIX
    settings = {"architecture": architecture, "image_shape": image_shape, "classes": classes}
    options = options or {}
    if taken := sorted({*settings, "status"} & set(options)):
        raise UserError(
            f"options: {', '.join(taken)}: expected other names, which are not those of a model file; "
            "call the function in the `build` of a .py file of your own"
        )
    try:
        model = build(**settings, **options)
    except UserError:
        raise
    except Exception as error:  # whatever foreign code raises
        raise UserError(f"architecture: {architecture} makes no network: {error!r}") from None
    if not isinstance(model, nn.Module):
        raise UserError(
            f"architecture: expected {architecture} to make a torch.nn.Module, got a "
            f"{type(model).__name__}"
        )
    if not exported:
        state = _read_state(Path(path))
        _check_state(path, state, model.state_dict(), architecture)
        model.load_state_dict(state)
    model.eval().requires_grad_(False)
    images = torch.rand(4, *image_shape, generator=torch.Generator().manual_seed(0))
    check_network(model, images, classes)
    if exported:
        _check_exported(path, model, images, classes)
    return model


def made_by(path: str | Path, architecture: str) -> str:
    """Return what makes the network of a checkpoint: the architecture, or the exported program itself.

    Of its own result, it returns the same.

    Raises:
        UserError: unless there is one of the two.
    """
    exported = Path(path).suffix == SUFFIX
    if (exported or architecture.endswith(SUFFIX)) and architecture not in ("", str(path)):
        raise UserError(
            f"architecture: expected none for an exported program, got {architecture}; leave it out, "
            f"and name the program (*{SUFFIX}) as the checkpoint"
        )
    if not exported and not architecture:
        raise UserError(
            f"architecture: expected what makes the network of {path}, got nothing; only an exported "
            f"program (*{SUFFIX}) needs none"
        )
    return architecture or str(path)


def _check_exported(path: str | Path, model: nn.Module, images: Tensor, classes: int) -> None:
    """Refuse a program that is fixed to a number of images or to float32, or draws random numbers."""
    logits = check_network(model, images[:1], classes)
    if not torch.equal(logits, check_network(model, images[:1], classes)):
        raise UserError(
            f"{path}: gives other logits at a second evaluation; export it after model.eval()"
        )
    try:
        check_network(copy.deepcopy(model).double(), images.double(), classes)
    except UserError as error:
        raise UserError(
            f"{path}: expected a network that can also be evaluated in float64, in which curvature is "
            f"measured; look for a dtype that is written into it ({error})"
        ) from None


def check_network(model: nn.Module, images: Tensor, classes: int) -> Tensor:
    """Return the logits ``[N, classes]`` of images ``[N, *image]`` in [0, 1], if they are finite.

    Raises:
        UserError: saying what it does instead.
    """
    try:
        logits = clean_logits(model, images, torch.zeros(len(images), dtype=torch.int64))
    except ValueError as error:
        raise UserError(str(error)) from None
    except Exception as error:  # whatever foreign code raises
        raise UserError(
            f"model: it cannot evaluate images of shape {tuple(images.shape)}: {error}"
        ) from None
    if logits.shape[1] != classes:
        raise UserError(
            f"model: expected {classes} logits, one per class, got {logits.shape[1]}; look at the "
            "options of its architecture"
        )
    if not logits.isfinite().all():
        raise UserError("model: expected finite logits on images in [0, 1], got NaN or infinity")
    return logits


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint, the state dict of a network")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise many kinds for what is no checkpoint
        reason = str(error).splitlines()[0]
        if reason.startswith("Weights only load failed"):
            reason = (
                "it holds other objects than tensors, as a whole network does, or is no such file"
            )
        raise UserError(
            f"{path}: expected a state dict, written by safetensors or by "
            f"torch.save(model.state_dict(), ...) ({reason})"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        keys = f" with the keys {_some(state)}" if isinstance(state, dict) else ""
        raise UserError(
            f"{path}: expected a state dict, tensors by name, got a {type(state).__name__}{keys}; "
            "save the part that is one"
        )
    return state


def _check_state(
    path: str | Path, state: Mapping[str, Tensor], own: Mapping[str, Tensor], architecture: str
) -> None:
    """Refuse a state dict that is not of this network."""
    missing = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own]
    if missing or unknown:
        prefix = "module."  # of torch.nn.DataParallel
        known = [name.removeprefix(prefix) in own for name in unknown]
        hint = f"; take {prefix!r} off the names" if known and all(known) else ""
        raise UserError(
            f"{path}: expected the parameters of {architecture}; missing: {_some(missing)}; "
            f"unknown: {_some(unknown)}{hint}"
        )
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise UserError(
                f"{path}: expected {name} of shape {tuple(tensor.shape)}, as in {architecture} with these "
                f"options, got {tuple(state[name].shape)}"
            )


def _some(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the first few names."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if listed[4:] else "") or "none"
