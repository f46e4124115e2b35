"""Operator norms of per-example input Hessians, without forming them, and penalties built on them.

The method needs PyTorch alone; :mod:`input_hessian.experiment` is what the pipeline adds.
"""

from importlib import import_module, metadata

try:
    __version__ = metadata.version("input-hessian-regularization")
except metadata.PackageNotFoundError:  # a checkout that was never installed
    __version__ = "unknown"

# Where each public name lives. They are looked up on first use: the figures' scripts import this
# package too, and need no torch.
_HOME = {
    "InputHessian": "hessian",
    "LayerwiseHessian": "layerwise",
    "derivatives": "layerwise",
    "Estimator": "estimators",
    "LargestEigenvalue": "estimators",
    "OperatorNorm": "estimators",
    "largest_eigenvalue": "estimators",
    "operator_norm": "estimators",
    "Objective": "penalties",
    "Penalty": "penalties",
    "SampledPenalty": "penalties",
    "NoPenalty": "penalties.none",
    "GradientPenalty": "penalties.gradient",
    "HessianPenalty": "penalties.hessian",
    "TaylorPenalty": "penalties.taylor",
    "CurePenalty": "penalties.cure",
    "JacobianPenalty": "penalties.jacobian",
    "AdversarialTraining": "penalties.adversarial",
    "Trades": "penalties.trades",
    "predicted_radius": "radius",
    "certified_radius": "certificate",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
