"""A PyTorch network as an OpenVINO graph: the few operations that convolutional classifiers are made of.

OpenVINO's own converter traces any PyTorch program, and takes two seconds for GoogLeNet, as long as scoring 90
regions; this one replays the network's `torch.fx` graph on OpenVINO's operations, in a twentieth of a second.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

Node = Any  # an OpenVINO node, or one of its outputs; the library has no type stubs


class UnknownOperationError(ValueError):
    """The network does something that has no counterpart here."""


def openvino_graph(module: nn.Module, *, size: int | None = None) -> ov.Model:
    """RGB pixels (R, S, S, 3) uint8 -> what the module makes of (R, 3, S, S), any R.

    Args:
        size: S; None for images of any height and width.

    Raises:
        UnknownOperationError: An operation of the module is not known; the message names it.
    """
    side = -1 if size is None else size
    pixels = ops.parameter([-1, side, side, 3], ov.Type.u8)
    try:
        traced = fx.symbolic_trace(module.eval())
    except (fx.proxy.TraceError, TypeError) as error:
        raise UnknownOperationError(f"the network cannot be traced ({error})") from None
    replay = _Replay(traced)
    replay.extra_traceback = False  # would be appended to the message of our own error
    with torch.no_grad():
        result = replay.run(ops.transpose(ops.convert(pixels, "f32"), np.array([0, 3, 1, 2])))
    return ov.Model([ops.result(result)], [pixels])


class _Replay(fx.Interpreter):
    """Runs a traced network with OpenVINO nodes for its activations; what only touches constants stays PyTorch's."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _touches_nodes(args):
            return super().call_function(target, args, kwargs)
        return _apply(FUNCTIONS, target, args, kwargs)

    def call_method(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not _touches_nodes(args):
            return super().call_method(target, args, kwargs)
        return _apply(METHODS, target, args, kwargs)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(target)
        return _apply(MODULES, type(module), (module, *args), kwargs)


def _touches_nodes(args: Any) -> bool:
    if isinstance(args, tuple | list):
        return any(_touches_nodes(argument) for argument in args)
    return isinstance(args, ov.Node | ov.Output)


def _apply(
    table: dict[Any, Callable[..., Any]], target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if target not in table:
        raise UnknownOperationError(f"operation {getattr(target, '__name__', target)} has no counterpart")
    return table[target](*args, **kwargs)


def _constant(value: Any) -> Any:
    """A number or tensor as a float32 constant; a node stays what it is."""
    if isinstance(value, Tensor):
        return ops.constant(value.detach().float().cpu().contiguous().numpy())
    if isinstance(value, int | float):
        return ops.constant(np.float32(value))
    return value


def _binary(operation: Callable[[Any, Any], Node]) -> Callable[[Any, Any], Node]:
    return lambda left, right: operation(_constant(left), _constant(right))


def _pair(value: int | tuple[int, ...]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _channels(values: Tensor) -> Node:
    """(channels,) -> a constant (1, channels, 1, 1)."""
    return _constant(values[None, :, None, None])


def _conv2d(
    x: Node,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Node:
    if groups != 1 or isinstance(padding, str):
        raise UnknownOperationError(
            "a convolution in groups or with padding given by name has no counterpart"
        )
    pads = _pair(padding)
    y = ops.convolution(x, _constant(weight), _pair(stride), pads, pads, _pair(dilation))
    return y if bias is None else ops.add(y, _channels(bias))


def _conv_module(layer: nn.Conv2d, x: Node) -> Node:
    return _conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _batch_norm(layer: nn.BatchNorm2d | nn.SyncBatchNorm, x: Node) -> Node:
    if layer.running_mean is None or layer.running_var is None:
        raise UnknownOperationError("a batch norm without moving mean and variance has no counterpart")
    factor = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        factor = factor * layer.weight
    shift = -layer.running_mean * factor
    if layer.bias is not None:
        shift = shift + layer.bias
    return ops.add(ops.multiply(x, _channels(factor)), _channels(shift))


def _linear(x: Node, weight: Tensor, bias: Tensor | None = None) -> Node:
    y = ops.matmul(x, _constant(weight), False, True)
    return y if bias is None else ops.add(y, _constant(bias))


def _max_pool2d(
    x: Node,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Node:
    kernel, begin = _pair(kernel_size), _pair(padding)
    strides = kernel if stride is None else _pair(stride)
    # rounding up is a window more where one would begin inside: the same as so much more padding at the end
    end = [pad + (step - 1) * ceil_mode for pad, step in zip(begin, strides, strict=True)]
    if any(step > side for step, side in zip(strides, kernel, strict=True)) and ceil_mode:
        raise UnknownOperationError("a pool that rounds up and leaves gaps has no counterpart")
    return ops.max_pool(x, strides, _pair(dilation), begin, end, kernel, "floor").output(0)


def _mean(x: Node, dim: Any = None, keepdim: bool = False) -> Node:
    return ops.reduce_mean(x, np.array([dim] if isinstance(dim, int) else dim, np.int64), keepdim)


def _adaptive_avg_pool2d(x: Node, output_size: Any) -> Node:
    cells = _pair(output_size)
    if cells == [1, 1]:
        return _mean(x, dim=(2, 3), keepdim=True)
    return ops.adaptive_avg_pool(x, np.array(cells, np.int64))


def _cat(tensors: list[Node], dim: int = 0) -> Node:
    return ops.concat([_constant(tensor) for tensor in tensors], dim)


def _flip(x: Node, *dims: Any) -> Node:
    """Reverse the channels: the only flip in a classifier is from RGB to BGR."""
    if dims not in ((1,), ((1,),), ([1],)):
        raise UnknownOperationError("a flip of anything but the three channels has no counterpart")
    return ops.gather(x, np.array([2, 1, 0], np.int64), np.int64(1))


def _getitem(x: Node, index: Any) -> Node:
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) and part.step in (None, 1) for part in parts):
        raise UnknownOperationError("indexing by anything but plain slices has no counterpart")
    whole = np.iinfo(np.int64).max
    start = np.array([part.start or 0 for part in parts], np.int64)
    stop = np.array([whole if part.stop is None else part.stop for part in parts], np.int64)
    return ops.slice(x, start, stop, np.ones(len(parts), np.int64), np.arange(len(parts), dtype=np.int64))


def _getattr(x: Node, name: str) -> Any:
    if name != "dtype":
        raise UnknownOperationError(f"attribute {name} has no counterpart")
    return torch.float32  # everything is float32 here


def _flatten(x: Node, start_dim: int = 0, end_dim: int = -1) -> Node:
    if (start_dim, end_dim) != (1, -1):
        raise UnknownOperationError("a flatten that does not keep just the first axis has no counterpart")
    return ops.reshape(x, np.array([0, -1], np.int64), True)


def _relu(x: Node, inplace: bool = False) -> Node:
    return ops.relu(x)


def _softmax(x: Node, dim: int) -> Node:
    return ops.softmax(x, dim)


def _same(x: Node, *_: Any, **__: Any) -> Node:
    return x


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    F.conv2d: _conv2d,
    F.linear: _linear,
    F.relu: _relu,
    torch.relu: _relu,
    F.max_pool2d: _max_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.softmax: _softmax,
    F.dropout: _same,  # a network that is judged is in eval mode
    torch.cat: _cat,
    torch.flatten: _flatten,
    torch.sigmoid: ops.sigmoid,
    torch.sqrt: ops.sqrt,
    operator.add: _binary(ops.add),
    operator.sub: _binary(ops.subtract),
    operator.mul: _binary(ops.multiply),
    operator.truediv: _binary(ops.divide),
    operator.matmul: _binary(lambda left, right: ops.matmul(left, right, False, False)),
    operator.getitem: _getitem,
    getattr: _getattr,
}
METHODS: dict[Any, Callable[..., Any]] = {
    "sqrt": ops.sqrt,
    "sigmoid": ops.sigmoid,
    "relu": _relu,
    "mean": _mean,
    "softmax": _softmax,
    "flatten": _flatten,
    "flip": _flip,
    "to": _same,
    "float": _same,
    "contiguous": _same,
}
MODULES: dict[Any, Callable[..., Any]] = {
    nn.Conv2d: _conv_module,
    nn.BatchNorm2d: _batch_norm,
    nn.SyncBatchNorm: _batch_norm,
    nn.Linear: lambda layer, x: _linear(x, layer.weight, layer.bias),
    nn.ReLU: lambda layer, x: ops.relu(x),
    nn.MaxPool2d: lambda layer, x: _max_pool2d(
        x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
    ),
    nn.AdaptiveAvgPool2d: lambda layer, x: _adaptive_avg_pool2d(x, layer.output_size),
    nn.Dropout: lambda layer, x: x,
    nn.Dropout2d: lambda layer, x: x,
    nn.Identity: lambda layer, x: x,
}
