"""Arrays of whoever calls: numpy's, torch's on any device, lists."""

from typing import Any

import numpy as np
import numpy.typing as npt


def as_array(values: Any) -> npt.NDArray[Any]:
    """numpy array of a torch tensor on any device, or of anything numpy takes."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if str(values.dtype) == "torch.bfloat16":  # which numpy does not know
            values = values.float()
        values = values.numpy()
    return np.asarray(values)
