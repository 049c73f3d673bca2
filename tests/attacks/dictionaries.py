"""Random embeddings, of which everything is known."""

import numpy as np

from qlorabench.attacks._dictionary import make_dictionary


def made_up_dictionary(vocabulary, places, width):
    """Return the dictionary of ``vocabulary`` random words of ``width`` coordinates at ``places`` positions."""
    rng = np.random.default_rng(0)
    words, positions = rng.normal(size=(vocabulary, width)), 0.3 * rng.normal(size=(places, width))
    return make_dictionary(
        words, places=positions, gain=np.ones(width), shift=0.1 * rng.normal(size=width), epsilon=1e-12
    )
