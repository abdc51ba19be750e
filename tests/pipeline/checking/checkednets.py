"""Small networks that the targets take in part, and a host whose rates are made up, so that placements differ."""

import numpy as np
from smallmodels import model

from pipeline.cost.hosts import RATES, HostProfile, Rate

LACKING = ("coral-edgetpu-pcie", "ethos-u65-256", "jetson-xavier-nx-dla", "conv-only", "ascend-310", "sapeon-x220")
"""Targets that lack some operator of ``swish_net``."""

TARGETS = (*LACKING, "snapdragon-855")


def host(**rates):
    """A host of one core: 1 GMAC/s, 1 GB/s, 10 us per operator unless said otherwise."""
    values = dict.fromkeys(RATES, 1e9) | {"overhead_s": 1e-5} | rates
    figures = {name: Rate(value=value, confidence="measured", source="made up") for name, value in values.items()}
    return HostProfile(name="made-up", title="made up", threads=1, figures=figures)


def weights(out, given, size=3, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (out, given, size, size)).astype(np.float32)


def swish_net(channels=8, size=16):
    """Convolutions with a HardSwish, a residual, a Softmax in the middle and a clamp that few NPUs fuse."""
    c, s = channels, size
    return model(
        f"""
        g (float[1,3,{s},{s}] x) => (float[1,{c},{s},{s}] y, float[1,{c},{s},{s}] z) {{
          a = Conv <pads = [1,1,1,1]> (x, w1)
          b = HardSwish (a)
          d = Conv <pads = [1,1,1,1]> (b, w2)
          e = Clip (d, low, high)
          f = Softmax <axis = 1> (e)
          h = Add (b, f)
          y = Conv <pads = [1,1,1,1]> (h, w3)
          z = Elu (h)
        }}
        """,
        w1=weights(c, 3),
        w2=weights(c, c, seed=1),
        w3=weights(c, c, seed=2),
        low=np.float32(-0.3),
        high=np.float32(0.7),
    )


def grouped_net(channels=64, groups=32, size=32):
    """A convolution in groups between two plain ones."""
    c, s, part = channels, size, channels // groups
    return model(
        f"""
        g (float[1,{c},{s},{s}] x) => (float[1,{c},{s},{s}] y) {{
          a = Conv <pads = [1,1,1,1]> (x, w1)
          b = Conv <pads = [1,1,1,1], group = {groups}> (a, w2)
          y = Conv <pads = [1,1,1,1]> (b, w3)
        }}
        """,
        w1=weights(c, c),
        w2=weights(c, part, seed=1),
        w3=weights(c, c, seed=2),
    )
