"""Example models, written with the public API of `tinygrad_mnist` alone."""
