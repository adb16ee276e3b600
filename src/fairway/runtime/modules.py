"""Modules of PyTorch: their tensors as safetensors; the project's load(folder) builds the module and reads them."""

from pathlib import Path
from typing import Any

from fairway._optional import need
from fairway.errors import ModelCodeError

WEIGHTS = "weights.safetensors"


def is_module(model: Any) -> bool:
    """Told by the names of its classes, so that nothing of PyTorch is loaded to find out."""
    return any(
        kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module" for kind in type(model).__mro__
    )


def save(model: Any, folder: Path) -> None:
    """Write the module's parameters and buffers, on the CPU, to weights.safetensors.

    Raises: MissingExtra without the package safetensors, ModelCodeError for state that is no tensor.
    """
    tensors = need("safetensors.torch", extra="torch")
    folder.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    odd = [name for name, value in state.items() if not hasattr(value, "contiguous")]
    if odd:
        raise ModelCodeError(f"{odd[0]} in the module's state is no tensor; add save(model, folder) to model.py")
    # Two names may share one tensor, which the format refuses: each gets its own copy.
    tensors.save_file(
        {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, folder / WEIGHTS
    )


def advice(model: Any) -> str:
    """What a project with a module must add."""
    return (
        f"train() returned {type(model).__name__}, a module of PyTorch: its tensors are stored as {WEIGHTS}. Add to "
        f"model.py load(folder), which makes the module, calls load_state_dict(safetensors.torch.load_file(folder / "
        f'"{WEIGHTS}")) and eval(), and predict(model, X)'
    )
