"""Ways to run a region classifier: eager PyTorch anywhere, OpenVINO where the CPU has to do it.

On two x86 cores OpenVINO scores about four times the regions that eager PyTorch does in its default layout
(`tools/benchmark.py detect` measures it); what they compute agrees to a millionth.
"""

import importlib.util
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from detector.region_classifier import RegionClassifier

RuntimeName = Literal["auto", "torch", "openvino"]

# Regions (R, S, S, 3), RGB uint8 -> probabilities (R, C), float32
Runtime = Callable[[np.ndarray], np.ndarray]


def choose_runtime(
    classifier: RegionClassifier, name: RuntimeName = "auto", device: torch.device | str = "cpu"
) -> Runtime:
    """Make a network ready to run.

    Args:
        name: `torch` runs the module as it is; `openvino` compiles it for the CPU; `auto` prefers OpenVINO on
            the CPU where it is installed and knows all operations of the network.
        device: For PyTorch.

    Raises:
        ValueError: `openvino` was asked for, and cannot run this network, or not on this device.
    """
    device = torch.device(device)
    if name == "torch" or (name == "auto" and (device.type != "cpu" or not _openvino_is_installed())):
        return torch_runtime(classifier, device)
    if device.type != "cpu":
        raise ValueError(f"--runtime openvino runs on the CPU, not on {device.type}; use --runtime torch")
    if not _openvino_is_installed():
        raise ValueError(
            "--runtime openvino: it is not installed (pip install openvino); use --runtime torch"
        )
    from detector.openvino_graph import UnknownOperationError

    try:
        return openvino_runtime(classifier)
    except UnknownOperationError as error:
        if name == "auto":
            return torch_runtime(classifier, device)
        raise ValueError(f"--runtime openvino: {error}; use --runtime torch") from None


def torch_runtime(classifier: RegionClassifier, device: torch.device | str = "cpu") -> Runtime:
    """The module itself, in eager mode."""
    device = torch.device(device)
    # channels-last is how the CPU's and GPU's convolution kernels like their input best
    network = classifier.eval().to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(regions: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(regions).to(device)  # (R, S, S, 3)
        return network(pixels.permute(0, 3, 1, 2)).float().cpu().numpy()

    return run


def openvino_runtime(classifier: RegionClassifier) -> Runtime:
    """The network compiled for this CPU, in float32, with as many threads as PyTorch has."""
    import openvino as ov

    from detector.openvino_graph import openvino_graph

    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads work on one batch
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it would take bfloat16 where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # pinned threads of two processes would crowd on the same cores
    }
    request = ov.Core().compile_model(openvino_graph(classifier), "CPU", settings).create_infer_request()

    def run(regions: np.ndarray) -> np.ndarray:
        return request.infer([regions], share_inputs=True)[0].copy()

    return run


def _openvino_is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None
