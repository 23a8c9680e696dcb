"""From a picture of handwriting to images as MNIST has them (Pillow and SciPy, from the ``images`` extra)."""
