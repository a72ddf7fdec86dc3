"""How much is multiplied."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Products(TorchDispatchMode):
    """Multiply-adds of matrix products, those in place and into given memory too, which PyTorch's counter leaves out."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function).split(".")[1].rstrip("_")
        if name in ("mm", "addmm"):
            left, right = args[-2:]
            self.count += left.shape[0] * left.shape[1] * right.shape[1]
        return function(*args, **(kwargs or {}))
