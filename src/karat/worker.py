"""Runs a `py:` candidate in a process of its own, so that it can crash, hang or print without harm.

`python -m karat.worker TARGET` reads a request a line from standard input, `{"suite", "function", "inputs", "outputs"}`
with two folders as `karat.exchange` describes them, and answers each with a line: `{"ok": true}`,
`{"unsupported": "why"}` or `{"raised": "traceback", "refuses": whether it may be meant for the inputs}`. What the
candidate prints goes to standard error.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from karat import inputs, tensors
from karat.suites import load_by_path

_BROKEN = (ImportError, SyntaxError, NameError, MemoryError, RecursionError)
"""What is raised by code that does not work, whatever its inputs."""


class CallError(TypeError):
    """The candidate's function cannot be called with what its contract gives it."""


def load_target(target: str, function: str) -> ModuleType | None:
    """Import `target`: a module name, a `.py` file, or a folder with `<function>.py` in it (None if it has none).

    Raise `ImportError` or `FileNotFoundError` where it cannot be found.
    """
    path = Path(target)
    if path.is_dir():
        files = sorted(path.rglob(f"{function}.py"))
        return _load_file(files[0]) if files else None
    if path.suffix == ".py":
        if not path.is_file():
            raise FileNotFoundError(f"no file {target}")
        return _load_file(path)
    sys.path.append(str(Path.cwd()))  # at the end, see below
    return importlib.import_module(target)


def _load_file(path: Path) -> ModuleType:
    sys.path.append(str(path.resolve().parent))  # at the end: the candidate's neighbours hide no installed package
    return load_by_path(path)


def run(module: ModuleType, function: str, folder: Path, target: Path) -> None:
    """Call the module's `function` with the inputs in `folder` and write what it returns into `target`."""
    description = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    flat = {name: tensor.load() for name, tensor in tensors.read_safetensors(folder / "inputs.safetensors").items()}
    if getattr(module, "ARRAYS", "numpy") == "torch":
        device = getattr(module, "DEVICE", "cpu")
        given = inputs.nest({name: _to_torch(array, device) for name, array in flat.items()})
    else:
        given = inputs.nest(flat)
    call = getattr(module, function)
    _require_takes(call, {**given, **description["params"]})
    returned = call(**given, **description["params"])
    names = [checkpoint["name"] for checkpoint in description["checkpoints"]]
    if description["refuses"]:
        returned = {}  # it answered; what it answered does not matter
    if not isinstance(returned, Mapping):
        if len(names) != 1:
            raise TypeError(
                f"{function} returned a {type(returned).__name__}; karat wants a mapping {{checkpoint: array}} of"
                f" {len(names)} checkpoints"
            )
        returned = {names[0]: returned}
    arrays = {str(name): to_numpy(value, str(name)) for name, value in returned.items()}
    tensors.write_safetensors(target / "outputs.safetensors", arrays)
    patterns = getattr(module, "UNSUPPORTED", ())
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"UNSUPPORTED = {patterns!r} is not a list of checkpoint patterns")
    (target / "unsupported.json").write_text(json.dumps(list(patterns)), encoding="utf-8")


def _require_takes(call: Any, arguments: Mapping[str, Any]) -> None:
    """Raise `CallError` if a function does not take these arguments; of one that does not say, nothing is known."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise CallError(f"{error}: it takes {signature} and is called with {', '.join(arguments)}") from None


def _to_torch(array: NDArray[Any], device: str) -> Any:
    import torch

    if array.dtype.isbuiltin == 1:
        return torch.from_numpy(np.array(array)).to(device)
    bits = torch.from_numpy(np.array(array).view(f"i{array.dtype.itemsize}"))
    return bits.view(getattr(torch, array.dtype.name)).to(device)


def to_numpy(value: Any, name: str) -> NDArray[Any]:
    """Return a candidate's array (NumPy, torch, or anything with `__array__` or `__dlpack__`) as a NumPy array.

    Raise `TypeError`, naming the checkpoint, for anything else.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        if str(value.dtype).removeprefix("torch.") in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            import ml_dtypes

            dtype = np.dtype(getattr(ml_dtypes, str(value.dtype).removeprefix("torch.")))
            integers = torch.int16 if dtype.itemsize == 2 else torch.int8
            return np.asarray(value.view(integers).numpy()).view(dtype)
        return np.asarray(value.numpy())
    if isinstance(value, (np.ndarray, np.generic, int, float, bool)) or hasattr(value, "__array__"):
        array = np.asarray(value)
    elif hasattr(value, "__dlpack__"):
        array = np.from_dlpack(value)
    else:
        raise TypeError(f"{name}: a {type(value).__name__} is not an array")
    if array.dtype.hasobject or (array.dtype.kind in "USVMm" and array.dtype.isbuiltin != 2):
        raise TypeError(f"{name}: an array of dtype {array.dtype} holds no numbers")
    return array


def main() -> None:
    """Answer requests until standard input ends."""
    target = sys.argv[1]
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the candidate prints must not be taken for an answer
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nor what it reads be a request
    modules: dict[str, ModuleType | None] = {}
    for line in requests:
        request = json.loads(line)
        print(json.dumps(_answer(target, request, modules)), file=answers, flush=True)


def _answer(target: str, request: dict[str, str], modules: dict[str, ModuleType | None]) -> dict[str, Any]:
    function, loaded = request["function"], False
    try:
        if function not in modules:
            modules[function] = load_target(target, function)
        module, loaded = modules[function], True
        if module is None or not hasattr(module, function):
            return {"unsupported": f"{target} has no function {function}"}
        run(module, function, Path(request["inputs"]), Path(request["outputs"]))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - what a candidate raises is its verdict, not karat's failure
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).parent != Path(__file__).parent]
        text = "".join(traceback.format_list(own) + traceback.format_exception_only(error))
        if "Tensor" in str(error) and "numpy.ndarray" in str(error):
            text += (
                'hint: the candidate is given NumPy arrays; with ARRAYS = "torch" in its module it is given tensors\n'
            )
        return {"raised": text[-8000:], "refuses": loaded and not isinstance(error, (*_BROKEN, CallError))}
    return {"ok": True}


if __name__ == "__main__":
    main()
