"""Operator norms of per-example input Hessians, without forming the Hessian."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from input_hessian.curvature import InputHessian, OperatorNorm, operator_norm
    from input_hessian.taylor import LayerwiseHessian

__all__ = ["InputHessian", "LayerwiseHessian", "OperatorNorm", "operator_norm"]


def __getattr__(name: str):
    # Looked up on first use: the figures' scripts import this package too and need no torch.
    if name in __all__:
        from input_hessian import curvature, taylor

        return getattr(taylor if name == "LayerwiseHessian" else curvature, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
