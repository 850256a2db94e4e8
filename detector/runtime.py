"""Ways to run a network on pixels: eager PyTorch anywhere, OpenVINO where the CPU has to do it.

On two x86 cores OpenVINO scores about four times the regions that eager PyTorch does in its default layout
(`tools/benchmark.py detect` measures it); what they compute agrees to a millionth.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import openvino

RuntimeName = Literal["auto", "torch", "openvino"]

# RGB uint8 (R, H, W, 3) -> what the module makes of (R, 3, H, W), float32
Runtime = Callable[[np.ndarray], np.ndarray]


def choose_runtime(
    module: nn.Module,
    name: RuntimeName = "auto",
    device: torch.device | str = "cpu",
    *,
    size: int | None = None,
) -> Runtime:
    """Make a module ready to run, such as a `RegionClassifier`.

    Args:
        module: RGB pixels of 0..255 (R, 3, H, W) -> a tensor (R, ...).
        name: `torch` runs the module as it is; `openvino` compiles it for the CPU; `auto` prefers OpenVINO on
            the CPU where it is installed and knows all operations of the network.
        device: For PyTorch.
        size: Height and width of all images, if they are known.

    Raises:
        ValueError: `openvino` was asked for, and cannot run this network, or not on this device.
    """
    device = torch.device(device)
    if name == "torch" or (name == "auto" and (device.type != "cpu" or not _openvino_is_installed())):
        return torch_runtime(module, device)
    if device.type != "cpu":
        raise ValueError(f"--runtime openvino runs on the CPU, not on {device.type}; use --runtime torch")
    if not _openvino_is_installed():
        raise ValueError(
            "--runtime openvino: it is not installed (pip install openvino); use --runtime torch"
        )
    from detector.openvino_graph import UnknownOperationError

    try:
        return openvino_runtime(module, size)
    except UnknownOperationError as error:
        if name == "auto":
            return torch_runtime(module, device)
        raise ValueError(f"--runtime openvino: {error}; use --runtime torch") from None


def torch_runtime(module: nn.Module, device: torch.device | str = "cpu") -> Runtime:
    """The module itself, in eager mode."""
    device = torch.device(device)
    # channels-last is how the CPU's and GPU's convolution kernels like their input best
    network = module.eval().to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(pixels: np.ndarray) -> np.ndarray:
        images = torch.from_numpy(pixels).to(device)  # (R, H, W, 3)
        return network(images.permute(0, 3, 1, 2)).float().cpu().numpy()

    return run


def openvino_runtime(module: nn.Module, size: int | None = None) -> Runtime:
    """The network compiled for this CPU, in float32, with as many threads as PyTorch has."""
    from detector.openvino_graph import openvino_graph

    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it would take bfloat16 where the CPU has it
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
