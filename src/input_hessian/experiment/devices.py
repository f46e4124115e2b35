"""Where a job computes, and how it is made repeatable."""

from __future__ import annotations

import os

import torch

from input_hessian.experiment.errors import UserError, check_count

# oneDNN's precision of float32 on a CPU; no option of PyTorch overrules it for convolutions.
SHORT_MANTISSAS = "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"


def configure(device: str, threads: int) -> torch.device:
    """Set up this process for repeatable float32 arithmetic and return the device to use.

    Raises:
        UserError: as :func:`resolve_device`, or if a variable makes oneDNN compute convolutions in
            bfloat16: it was read when torch was imported.
    """
    for name in SHORT_MANTISSAS:
        if (mode := os.environ.get(name, "STRICT")) not in ("", "STRICT"):
            raise UserError(
                f"{name}: expected STRICT or unset, got {mode}, whose few bits are too few for "
                "curvature; unset it"
            )
    check_count("threads", threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    torch.set_num_threads(threads)
    # Not use_deterministic_algorithms, which imports PyTorch's compiler to set an option of it: 2 s.
    torch.set_deterministic_debug_mode("warn")
    # Ten bits of mantissa are too few for curvature, whatever the environment variables say.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read once CUDA is used
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    return resolve_device(device)


def with_float64(device: torch.device) -> torch.device:
    """Return the device, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def resolve_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``mps`` stands for.

    Raises:
        UserError: if the device is unknown or this machine does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if name not in available:
        raise UserError(f"device: expected auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise UserError(f"device: {name} was asked for, but PyTorch finds none; use auto or cpu")
    return torch.device(name)
