"""How each primitive is written as ONNX nodes: one converter for each, in files like those of `tinygrad_mnist.ops`."""

from . import convolution as convolution
from . import elementwise as elementwise
from . import pooling as pooling
from . import products as products
from .registry import CONVERTERS as CONVERTERS
from .registry import onnx_converter as onnx_converter
