"""Every opcode under every contract: the fast path against the plain kernel, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from npu_programs import feeds
from random_programs import CONTRACTS, has_form, random_program

from runtime.errors import ProgramError
from runtime.npu.device import Device
from runtime.npu.kernels import KERNELS
from runtime.npu.rules import OPCODES

SEEDS = st.integers(0, 2**32)


def test_every_opcode_has_a_kernel():
    assert OPCODES.keys() == KERNELS.keys()


@pytest.mark.parametrize("opcode", OPCODES)
@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, contract=st.sampled_from(CONTRACTS))
def test_the_fast_path_is_the_plain_kernel(opcode, seed, contract):
    if not has_form(opcode, contract):
        return
    item = random_program(opcode, contract, seed)
    fast, plain = Device(item, threads=1), Device(item, fast=False)
    values = feeds(item, seed)
    try:
        expected = plain.run(values)
    except ProgramError as error:
        with pytest.raises(ProgramError, match="leaves int32|shift"):
            fast.run(values)
        assert "instruction" in str(error)
        return
    for name, value in fast.run(values).items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_array_equal(value, expected[name])
