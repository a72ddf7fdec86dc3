"""Logits that are not made unless somebody reads them.

A causal language model applies its head, may scale or cap the logits, and hands them to its loss function. A
`DeferredLogits` stands for them on that way: it notes what is done to it, as long as that is one of a few
operations that act on each logit by itself, so that a loss can do the same to a chunk of logits. Whatever else
is asked of it is asked of the logits themselves, which are then made, once, as the model would have made them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[[torch.Tensor], torch.Tensor]


def _with_number(function: Callable, args: tuple, kwargs: dict) -> Step | None:
    """The operation of a logit and one number; None where the other operand is more than that."""
    if kwargs or len(args) != 2:
        return None
    numbers = [isinstance(each, int | float) and not isinstance(each, bool) for each in args]
    if not any(numbers):
        return None
    return lambda logits: function(
        *(each if is_number else logits for each, is_number in zip(args, numbers, strict=True))
    )


def _alone(function: Callable, args: tuple, kwargs: dict) -> Step | None:
    return None if kwargs or len(args) != 1 else function


def _to_dtype(function: Callable, args: tuple, kwargs: dict) -> Step | None:
    dtypes = [*args[1:], *kwargs.values()]
    if len(dtypes) != 1 or not isinstance(dtypes[0], torch.dtype):
        return None
    return lambda logits: logits.to(dtypes[0])


# These give the tensor itself where there is nothing to do.
_MAY_GIVE_ITS_OWN = (torch.Tensor.float, torch.Tensor.contiguous, torch.Tensor.to)

# Operations on each logit by itself, and how they are noted.
_NOTED: dict[Callable, Callable[[Callable, tuple, dict], Step | None]] = {
    **dict.fromkeys(
        (torch.mul, torch.Tensor.mul, torch.div, torch.Tensor.div, torch.true_divide), _with_number
    ),
    **dict.fromkeys((torch.tanh, torch.Tensor.tanh, torch.Tensor.float, torch.Tensor.contiguous), _alone),
    torch.Tensor.to: _to_dtype,
}


class DeferredLogits:
    """Stands for `head(hidden)` with some operations applied.

    Args:
        hidden: (..., width), what the head would read.
        rows: the head's rows, the size of the last dimension.
        make: makes the logits from the hidden states.
        on_made: called with what was asked for when the logits had to be made.
    """

    def __init__(
        self,
        hidden: torch.Tensor,
        rows: int,
        make: Callable[[torch.Tensor], torch.Tensor],
        on_made: Callable[[str], None],
        steps: tuple[Step, ...] = (),
    ):
        self.hidden, self.rows, self.steps = hidden, rows, steps
        self._make, self._on_made = make, on_made
        self._made: torch.Tensor | None = None

    def transform(self, logits: torch.Tensor) -> torch.Tensor:
        """What is to be done to the head's logits, in order."""
        for step in self.steps:
            logits = step(logits)
        return logits

    def made(self, for_what: str) -> torch.Tensor:
        """The logits themselves."""
        if self._made is None:
            self._on_made(for_what)
            self._made = self.transform(self._make(self.hidden))
        return self._made

    @property
    def is_made(self) -> bool:
        """Whether the logits were made already; they may have been changed in place since."""
        return self._made is not None

    @property
    def shape(self) -> torch.Size:
        """As the logits would have it."""
        return torch.Size((*self.hidden.shape[:-1], self.rows))

    @property
    def device(self) -> torch.device:
        """Where the logits would be."""
        return self.hidden.device

    @property
    def dtype(self) -> torch.dtype:
        """As the logits would have it."""
        device = self.hidden.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else self.hidden.dtype
        return self.transform(torch.empty(0, dtype=dtype, device=self.hidden.device)).dtype

    def size(self, dim: int | None = None):
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """As a tensor's."""
        return self.hidden.dim()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        note = _NOTED.get(function)
        deferred = [each for each in args if isinstance(each, cls)]
        step = note(function, args, kwargs) if note and len(deferred) == 1 else None
        if step is not None and deferred[0]._made is None:
            return deferred[0]._with(step, may_be_the_same=function in _MAY_GIVE_ITS_OWN)
        name = getattr(function, "__name__", str(function))
        args, kwargs = _made(args, name), _made(kwargs, name)
        return function(*args, **kwargs)

    def _with(self, step: Step, may_be_the_same: bool) -> DeferredLogits:
        after = DeferredLogits(self.hidden, self.rows, self._make, self._on_made, (*self.steps, step))
        return self if may_be_the_same and after.dtype == self.dtype else after

    def __getattr__(self, name: str):
        if name.startswith("__"):  # what Python and its libraries look for in passing
            raise AttributeError(name)
        function = getattr(torch.Tensor, name, None)
        if function in _NOTED:
            return lambda *args, **kwargs: self.__torch_function__(function, (), (self, *args), kwargs)
        return getattr(self.made(name), name)

    def __mul__(self, other):
        return self.__torch_function__(torch.mul, (), (self, other))

    def __rmul__(self, other):
        return self.__torch_function__(torch.mul, (), (other, self))

    def __truediv__(self, other):
        return self.__torch_function__(torch.div, (), (self, other))


def _operator(name: str):
    def method(self, *args):
        return getattr(self.made(name), name)(*(_made(each, name) for each in args))

    return method


for _name in (
    "add radd sub rsub rtruediv floordiv mod pow rpow matmul rmatmul neg pos abs invert and or xor "
    "eq ne lt le gt ge getitem setitem len iter bool float int contains format array"
).split():
    setattr(DeferredLogits, f"__{_name}__", _operator(f"__{_name}__"))


def _made(value, name: str):
    """`value` with every DeferredLogits in it made."""
    if isinstance(value, DeferredLogits):
        return value.made(name)
    if isinstance(value, tuple | list):
        return type(value)(_made(each, name) for each in value)
    if isinstance(value, dict):
        return {key: _made(each, name) for key, each in value.items()}
    return value
