"""From a picture of handwriting to images as MNIST has them (Pillow and SciPy, from the ``images`` extra).

A picture is read (`reading`), its ink is told from paper, shadows, grain and ruled lines (`paper`, `ink`, `ruling`),
the strokes are put together to digits (`segmentation`), and each is given MNIST's size, place and width of stroke
(`normalization`). `digits` has the one public function.
"""
