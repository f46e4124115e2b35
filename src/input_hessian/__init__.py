"""Operator norms of per-example input Hessians, without forming them, and penalties built on them.

The method needs PyTorch alone; :mod:`input_hessian.experiment` is what the pipeline adds.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

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
    "Eigenpairs": "spectrum",
    "Trace": "spectrum",
    "top_eigenpairs": "spectrum",
    "trace": "spectrum",
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


if TYPE_CHECKING:  # the same for type checkers and editors, which do not run this
    from input_hessian.certificate import certified_radius as certified_radius
    from input_hessian.estimators import Estimator as Estimator
    from input_hessian.estimators import LargestEigenvalue as LargestEigenvalue
    from input_hessian.estimators import OperatorNorm as OperatorNorm
    from input_hessian.estimators import largest_eigenvalue as largest_eigenvalue
    from input_hessian.estimators import operator_norm as operator_norm
    from input_hessian.hessian import InputHessian as InputHessian
    from input_hessian.layerwise import LayerwiseHessian as LayerwiseHessian
    from input_hessian.layerwise import derivatives as derivatives
    from input_hessian.penalties import Objective as Objective
    from input_hessian.penalties import Penalty as Penalty
    from input_hessian.penalties import SampledPenalty as SampledPenalty
    from input_hessian.penalties.adversarial import AdversarialTraining as AdversarialTraining
    from input_hessian.penalties.cure import CurePenalty as CurePenalty
    from input_hessian.penalties.gradient import GradientPenalty as GradientPenalty
    from input_hessian.penalties.hessian import HessianPenalty as HessianPenalty
    from input_hessian.penalties.jacobian import JacobianPenalty as JacobianPenalty
    from input_hessian.penalties.none import NoPenalty as NoPenalty
    from input_hessian.penalties.taylor import TaylorPenalty as TaylorPenalty
    from input_hessian.penalties.trades import Trades as Trades
    from input_hessian.radius import predicted_radius as predicted_radius
    from input_hessian.spectrum import Eigenpairs as Eigenpairs
    from input_hessian.spectrum import Trace as Trace
    from input_hessian.spectrum import top_eigenpairs as top_eigenpairs
    from input_hessian.spectrum import trace as trace
else:

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
