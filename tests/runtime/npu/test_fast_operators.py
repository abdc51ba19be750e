"""Every opcode under every contract: the fast path against the plain kernel, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_programs import feeds
from random_programs import CONTRACTS, has_form, random_program

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.fast import PlainStep
from runtime.npu.kernels import KERNELS
from runtime.npu.rules import OPCODES

SEEDS = st.integers(0, 2**32)


def test_every_opcode_has_a_kernel():
    assert OPCODES.keys() == KERNELS.keys()


@pytest.mark.parametrize("opcode", ["average_pool", "softmax", "mean"])
@pytest.mark.parametrize("contract", CONTRACTS)
def test_none_of_these_runs_with_its_plain_kernel(opcode, contract):
    if not has_form(opcode, contract):
        return
    kinds = {type(step) for seed in range(12) for step in Device(random_program(opcode, contract, seed))._steps}
    assert PlainStep not in kinds


def outcome(device, values):
    """The outputs, or the message of the error."""
    try:
        return device.run(values)
    except ProgramError as error:
        return str(error)


@pytest.mark.parametrize("opcode", OPCODES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, contract=st.sampled_from(CONTRACTS))
def test_the_fast_path_is_the_plain_kernel(opcode, seed, contract):
    if not has_form(opcode, contract):
        return
    item = random_program(opcode, contract, seed)
    values = feeds(item, seed)
    expected, found = (outcome(Device(item, fast, 1), values) for fast in (False, True))
    assert type(found) is type(expected)
    if isinstance(expected, str):
        assert "leaves int32" in expected or "shift" in expected
        return
    for name, value in found.items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_array_equal(value, expected[name])
