"""What tests against TensorFlow Lite's kernels share: layouts, padding, and the comparison itself."""

import numpy as np
from npu_programs import feeds

from runtime.npu.device import Device


def to_nhwc(array):
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim == 4 else array


def from_nhwc(array):
    return np.moveaxis(array, -1, 1) if array.ndim == 4 else array


def differing(item, content, runner, seed, layout=True):
    values = feeds(item, seed)
    ours = Device(item, fast=False).run(values)[item.outputs[0]]
    given = [to_nhwc(values[name]) if layout else values[name] for name in item.inputs]
    theirs = runner(content, given)
    theirs = from_nhwc(theirs) if layout else theirs
    assert theirs.shape == ours.shape
    return int((theirs != ours).sum())


def same_padding(size, kernel, stride, dilation=1):
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def pads_of(mode, shape, kernel, strides, dilations=(1, 1)):
    if mode == "VALID":
        return 0, 0, 0, 0
    (top, bottom), (left, right) = (same_padding(shape[2 + i], kernel[i], strides[i], dilations[i]) for i in (0, 1))
    return top, left, bottom, right


def window(size, kernel, strides, pads, dilations=(1, 1)):
    reach = [(kernel[i] - 1) * dilations[i] + 1 for i in (0, 1)]
    return tuple((size[i] + pads[i] + pads[i + 2] - reach[i]) // strides[i] + 1 for i in (0, 1))
