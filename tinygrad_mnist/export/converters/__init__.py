"""How each primitive is written as ONNX nodes: one converter for each, in files like those of `tinygrad_mnist.ops`."""

from . import activations as activations
from . import arrangement as arrangement
from . import contraction as contraction
from . import convolution as convolution
from . import elementwise as elementwise
from . import functions as functions
from . import indexing as indexing
from . import linalg as linalg
from . import logic as logic
from . import normalization as normalization
from . import pooling as pooling
from . import products as products
from . import reduction as reduction
from . import scores as scores
from . import shape as shape
from . import sorting as sorting
from . import statistics as statistics
from . import transforms as transforms
from .registry import CONVERTERS as CONVERTERS
from .registry import onnx_converter as onnx_converter
