import numpy as np
import pytest
from npu_programs import clamp, feeds, network, scaling, single, spec

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.kernels import KERNELS
from runtime.npu.verify import OPCODES


def test_every_opcode_has_a_kernel():
    assert KERNELS.keys() == OPCODES.keys()


def test_trace_gives_every_tensor_and_agrees_with_run():
    item = network(4)
    device = Device(item)
    trace, outputs = device.trace(feeds(item)), device.run(feeds(item))
    assert trace.keys() == {tensor.name for tensor in item.tensors}
    assert outputs.keys() == {"logits", "sum"}
    for name, value in outputs.items():
        assert value.dtype == np.int8
        np.testing.assert_array_equal(value, trace[name])


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.clear(), "input .'image'. is missing"),
        (lambda f: f.update(other=f["image"]), r".'other'. is not an input \(the inputs are image\)"),
        (lambda f: f.update(image=f["image"].astype(np.uint8)), "input 'image': got uint8 .*, expected int8"),
        (lambda f: f.update(image=f["image"][:, :2]), r"got int8 \(1, 2, 16, 20\), expected int8 \(1, 3, 16, 20\)"),
    ],
)
def test_wrong_inputs_are_named(fast, change, message):
    item = network(5)
    device, given = Device(item, fast=fast), feeds(item)
    change(given)
    with pytest.raises(ProgramError, match=message):
        device.run(given)


def overflowing(bias, factor=2.0**-24):
    x, y = spec("x", (1, 2)), spec("y", (1, 1))
    constants = {"weight": np.full((1, 2), 127, np.int8), "bias": np.array([bias], np.int32), **scaling(factor)}
    return single("fully_connected", [x], y, clamp(), constants)


@pytest.mark.parametrize("fast", [False, True])
def test_an_accumulator_that_leaves_int32_is_an_error_and_never_wraps(fast):
    item = overflowing(2**31 - 1 - 127)
    device = Device(item, fast=fast)
    assert device.run({"x": np.array([[1, 0]], np.int8)})["y"] == 127
    with pytest.raises(
        ProgramError, match="fully_connected 'the_fully_connected': the accumulator with its bias leaves"
    ):
        device.run({"x": np.array([[1, 1]], np.int8)})


@pytest.mark.parametrize("fast", [False, True])
def test_a_positive_shift_that_overflows_is_an_error(fast):
    device = Device(overflowing(0, 2.0**20), fast=fast)
    assert device.run({"x": np.array([[0, 0]], np.int8)})["y"] == 0
    with pytest.raises(ProgramError, match="leaves int32"):
        device.run({"x": np.array([[127, 127]], np.int8)})


def test_the_input_is_not_modified():
    item = network(6)
    given = feeds(item)
    before = given["image"].copy()
    Device(item).run(given)
    Device(item).trace(given)
    np.testing.assert_array_equal(given["image"], before)
