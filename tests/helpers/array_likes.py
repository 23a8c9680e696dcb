"""Array-likes that are neither arrays nor lists."""

import numpy as np


class Labelled:
    """Like a pandas Series with a shuffled index: indexing is by label, which is never the position."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype, copy=copy)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[::-1][index] + 1 if len(self.values) else self.values
