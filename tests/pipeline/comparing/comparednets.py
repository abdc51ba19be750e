"""A small network that the targets take in part."""

import numpy as np
from smallmodels import model


def swish_net(channels=16, size=64):
    """Two convolutions with a HardSwish between them."""
    shape = f"float[1,{channels},{size},{size}]"
    return model(
        f"""
        g (float[1,3,{size},{size}] x) => ({shape} y) {{
          a = Conv <pads = [1,1,1,1]> (x, w1)
          b = HardSwish (a)
          y = Conv <pads = [1,1,1,1]> (b, w2)
        }}
        """,
        w1=_weights(channels, 3),
        w2=_weights(channels, channels, seed=1),
    )


def _weights(out, given, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (out, given, 3, 3)).astype(np.float32)
