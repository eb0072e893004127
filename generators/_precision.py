"""Runs a torch reference in float64 all the way: promotes every cast to float32 that a model's own code makes.

Calling `.double()` on a model is not enough. Llama-like models cast to float32 inside RMSNorm, rotary embeddings and
softmax, which leaves "float64" logits with the error of float32 (5e-7 to 9e-7 relative).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LOW = (torch.float32, torch.float16, torch.bfloat16)


def _promoted(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _LOW else value


class _PromoteCalls(TorchFunctionMode):  # type: ignore[misc]  # torch is not installed where types are checked
    """Turns `.float()` into `.double()` and every low floating dtype among the arguments into float64."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16):
            return args[0].double()
        args = tuple(_promoted(a) for a in args)
        return func(*args, **{key: _promoted(value) for key, value in (kwargs or {}).items()})


class _PromoteOperations(TorchDispatchMode):  # type: ignore[misc]  # see above
    """The same below the Python API, for casts that library code makes."""

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(_promoted(a) for a in args)
        return func(*args, **{key: _promoted(value) for key, value in (kwargs or {}).items()})


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Run the torch code inside with every cast to a lower floating format promoted to float64."""
    with _PromoteCalls(), _PromoteOperations():
        yield
