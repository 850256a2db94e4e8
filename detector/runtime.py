"""Ways to run a network on pixels: eager PyTorch anywhere, OpenVINO where the CPU has to do it.

On two x86 cores OpenVINO scores two to four times the regions that eager PyTorch does in its default layout
(`tools/benchmark.py detect` measures it); what they compute agrees to a millionth.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import openvino

RuntimeName = Literal["auto", "torch", "openvino"]

# Of products inside the network: `tf32` keeps 10 bits of the mantissa, on GPUs that have it; `bfloat16` keeps 7, on
# GPUs and CPUs that have it.
Precision = Literal["float32", "tf32", "bfloat16"]

# RGB uint8 (R, H, W, 3) -> what the module makes of (R, 3, H, W), float32
Runtime = Callable[[np.ndarray], np.ndarray]


def choose_runtime(
    module: nn.Module,
    name: RuntimeName = "auto",
    device: torch.device | str = "cpu",
    *,
    size: int | None = None,
    precision: Precision = "float32",
) -> Runtime:
    """Make a module ready to run, such as a `RegionClassifier`.

    Args:
        module: RGB pixels of 0..255 (R, 3, H, W) -> a tensor (R, ...).
        name: `torch` runs the module as it is; `openvino` compiles it for the CPU; `auto` prefers OpenVINO on
            the CPU where it is installed and knows all operations of the network.
        device: For PyTorch.
        size: Height and width of all images, if they are known.
        precision: Of the arithmetic; the result is float32.

    Raises:
        ValueError: `openvino` was asked for, and cannot run this network, or not on this device; `tf32` on a CPU.
    """
    device = torch.device(device)
    if precision == "tf32" and device.type == "cpu":
        raise ValueError("--precision tf32 is for GPUs; on the CPU use float32 or bfloat16")
    if name == "torch" or (name == "auto" and (device.type != "cpu" or not _openvino_is_installed())):
        return torch_runtime(module, device, precision)
    if device.type != "cpu":
        raise ValueError(f"--runtime openvino runs on the CPU, not on {device.type}; use --runtime torch")
    if not _openvino_is_installed():
        raise ValueError(
            "--runtime openvino: it is not installed (pip install openvino); use --runtime torch"
        )
    from detector.openvino_graph import UnknownOperationError

    try:
        return openvino_runtime(module, size, precision)
    except UnknownOperationError as error:
        if name == "auto":
            return torch_runtime(module, device, precision)
        raise ValueError(f"--runtime openvino: {error}; use --runtime torch") from None


def torch_runtime(
    module: nn.Module, device: torch.device | str = "cpu", precision: Precision = "float32"
) -> Runtime:
    """The module itself, in eager mode."""
    device = torch.device(device)
    # Channels-last is how convolution kernels like their input best, but for a GPU's in full float32: on an H100 these
    # give 0.87 times the regions a second with it, and those in TF32 and bfloat16 1.6 and 2.0 times.
    full = device.type == "cuda" and precision == "float32"
    layout = torch.contiguous_format if full else torch.channels_last
    network = module.eval().to(device).to(memory_format=layout)

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        with arithmetic(device, precision):
            return network(images).float().cpu().numpy()

    return run


@contextmanager
def arithmetic(device: torch.device, precision: Precision) -> Iterator[None]:
    """Products in this precision: PyTorch by itself takes TF32 for convolutions wherever a GPU has it."""
    cudnn = torch.backends.cudnn
    flags = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=precision == "tf32",
    )
    with (
        flags if device.type == "cuda" else nullcontext(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield


def openvino_runtime(module: nn.Module, size: int | None = None, precision: Precision = "float32") -> Runtime:
    """The network compiled for this CPU, with as many threads as PyTorch has."""
    from detector.openvino_graph import openvino_graph

    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
        # By itself it would take bfloat16 wherever the CPU has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # pinned threads of two processes would crowd on the same cores
    }
    request = (
        _openvino_core()
        .compile_model(openvino_graph(module, size=size), "CPU", settings)
        .create_infer_request()
    )

    def run(pixels: np.ndarray) -> np.ndarray:
        return request.infer([pixels], share_inputs=True)[0].copy()

    return run


@cache
def _openvino_core() -> "openvino.Core":
    """The one of this process.

    Each core gives the thread that makes it a stack for signals and takes that away when it ends. Two that end in the
    order of their beginnings leave a stack that no longer exists, and the next signal kills the process.
    """
    from openvino import Core

    return Core()


def _openvino_is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None
