"""What is trained or computed here, taken elsewhere: ONNX files, gradients included, and weights for PyTorch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .torch_weights import from_torch_state_dict as from_torch_state_dict
from .torch_weights import to_torch_state_dict as to_torch_state_dict

if TYPE_CHECKING:
    from .converters import onnx_converter as onnx_converter
    from .exporting import to_onnx as to_onnx

__all__ = ["from_torch_state_dict", "onnx_converter", "to_onnx", "to_torch_state_dict"]

LATER = {"onnx_converter": "converters", "to_onnx": "exporting"}  # these need the onnx package


def __getattr__(name: str) -> Any:
    if name in LATER:
        globals()[name] = getattr(import_module(f"{__name__}.{LATER[name]}"), name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
