"""Networks of the experiment, one architecture per file, and how they are stored.

All map images in [0, 1] (never normalised outside the model) to logits, image by image: no
BatchNorm, no pooling.  The default activation is softplus, because a ReLU network's logits have no
curvature almost everywhere.  To add an architecture, write a file with a function ``build``, here or
anywhere else.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.exported import SUFFIX, load_exported
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.plugins import load_plugin

FOREIGN = (
    "a network of your own needs its architecture: --architecture of input-hessian evaluate, or "
    "load_checkpoint, see docs/own-network.md"
)


class ModelFileError(UserError):
    """A model file is missing or cannot be read."""


def activation(name: str, beta: float) -> Callable[[], nn.Module]:
    """Return what makes one activation layer.

    Args:
        name: ``"softplus"`` or ``"relu"``.
        beta: sharpness of softplus, ``log(1 + exp(beta a)) / beta``; its second derivative is at
            most ``beta / 4``.  Ignored by relu.

    Raises:
        UserError: for an unknown activation, or a beta that is not above 0.
    """
    if name not in ("softplus", "relu"):
        raise UserError(f"activation: expected softplus or relu, got {name!r}")
    if not beta > 0:
        raise UserError(f"beta: expected a number above 0, got {beta}")
    return nn.ReLU if name == "relu" else lambda: nn.Softplus(beta)


def build(
    *, architecture: str, image_shape: Sequence[int], classes: int, **options: Any
) -> nn.Module:
    """Return a freshly initialised network (PyTorch's default initialisation, global generator).

    Args:
        architecture: a file of this package, or the path of one's own, whose ``build`` makes the
            network of image shape, classes and options; ``package.module:function``, which makes it
            of the options alone; or the path of an exported program (``.pt2``), which takes none.
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.
        options: keywords of that function.

    Raises:
        UserError: for an unknown architecture, or options that do not fit it.
    """
    if architecture.endswith(SUFFIX):
        make, arguments = (lambda: load_exported(architecture)), ()
    elif ":" in architecture:
        make, arguments = installed_function(architecture), ()
    else:
        module, arguments = load_plugin("architecture", architecture), (tuple(image_shape), classes)
        make = getattr(module, "build", None)
        if make is None:
            raise UserError(
                f"architecture: expected a function build in {module.__file__}, found none"
            )
    try:
        inspect.signature(make).bind(*arguments, **options)
    except TypeError as error:
        allowed = list(inspect.signature(make).parameters)[len(arguments) :]
        takes = f"the options {', '.join(allowed)}" if allowed else "no options"
        raise UserError(f"model: {error}; {architecture} takes {takes}") from None
    return make(*arguments, **options)


def installed_function(name: str) -> Callable[..., nn.Module]:
    """Return the function of an installed package that ``package.module:function`` names.

    Raises:
        UserError: if the module cannot be imported, or has no such function.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except Exception as error:  # whatever the import of foreign code raises
        raise UserError(
            f"architecture: expected package.module:function of an installed package, got {name!r} "
            f"({error})"
        ) from None


def save_model(
    model: nn.Module,
    settings: dict[str, Any],
    path: str | Path,
    status: str = "finished",
    **metadata: str,
) -> None:
    """Write parameters, keywords of :func:`build` and training status to one safetensors file.

    Other ``metadata`` is not read again; it makes files differ.
    """
    state = {  # copies, as layers may share a parameter
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in model.state_dict().items()
    }
    description = json.dumps({**settings, "status": status}, sort_keys=True)
    write_atomically(path, save(state, metadata={"model": description, **metadata}))


def read_settings(path: str | Path) -> tuple[dict[str, Any], str]:
    """Return the keywords of :func:`build` and the status that :func:`save_model` wrote.

    Raises:
        ModelFileError: if the file is missing, truncated or not one of ours.
    """
    settings, _ = _read(path)
    return settings, settings.pop("status")


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, str]:
    """Return the network of a file that :func:`save_model` wrote, frozen and in evaluation mode, and its status.

    Raises:
        ModelFileError: if the file is missing, truncated or not one of ours.
    """
    settings, state = _read(path)
    status = settings.pop("status")
    model = build(**settings)
    if status == "finished" and not all(tensor.isfinite().all() for tensor in state.values()):
        raise ModelFileError(
            f"{path}: expected finite parameters of a finished training, got NaN or infinity; delete "
            "it and run snakemake again"
        )
    model.load_state_dict(state)
    return model.to(device).eval().requires_grad_(False), status


def _read(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            settings = json.loads(file.metadata()["model"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        settings["status"]
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file; run snakemake to make it") from None
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path}: expected a model written by this pipeline ({error}); {FOREIGN}; if the pipeline "
            "wrote it, it is damaged: delete it and run snakemake again"
        ) from error
    except (KeyError, TypeError):
        raise ModelFileError(
            f"{path}: expected a model written by this pipeline, got a file without its settings; "
            f"{FOREIGN}"
        ) from None
    return settings, state
