"""A program: a compiled NPU partition. Its file format is in ``runtime.npu.encoding``.

Every number that the arithmetic needs is folded into the instructions by the compiler, so that the device never
sees a floating-point scale. Opcodes, their attributes and constants (NCHW, N = 1, all activations int8):

======================  =====================================================================================
opcode                  attributes; constants
======================  =====================================================================================
``conv2d``              strides (2), pads (top, left, bottom, right), dilations (2), group, act_min, act_max;
                        weight int8 [O, I/group, kh, kw], bias int32 [O], multiplier int32 [O], shift int32 [O]
``fully_connected``     act_min, act_max; weight int8 [O, K], bias int32 [O], multiplier int32 [O], shift int32 [O]
``add``, ``sub``        left_shift, act_min, act_max; multiplier int32 [3], shift int32 [3]: first, second, output
``mul``                 act_min, act_max; multiplier int32 [1], shift int32 [1]
``requantize``          act_min, act_max; multiplier int32 [1], shift int32 [1]
``lookup``              table int8 [256], indexed by q + 128
``max_pool``            kernel (2), strides (2), pads (4)
``average_pool``        kernel (2), strides (2), pads (4); padding is not counted
``mean``                axes; multiplier int32 [1], shift int32 [1] of s_x / s_y (1/n is folded by the kernel)
``resize_nearest``      rows int32 [Hout], columns int32 [Wout]: the source index of every output index
``concat``              axis; all inputs have the output's scale and zero point
``reshape``             the output's shape is the tensor's
``transpose``           permutation
======================  =====================================================================================

``multiplier`` m and ``shift`` e stand for the real factor ``m * 2**(e - 31)``: m is 0 (with e = 0) or lies in
[2**30, 2**31 - 1], and e in [-31, 30] (``add`` and ``sub``: [-31, 0]). Zero points are those of the tensors.
``max_pool``, ``average_pool``, ``resize_nearest``, ``concat``, ``reshape`` and ``transpose`` need equal scales and
zero points on both sides. ``runtime.npu.verify`` holds the full rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runtime.npu.schedule import Schedule
from runtime.tensors import TensorSpec

Attribute = int | tuple[int, ...]


@dataclass(frozen=True)
class Instruction:
    """One operator with its folded integer parameters.

    Attributes:
        opcode: see the module's table.
        name: the graph node it was compiled from, for reports and errors.
        inputs: names of the activation tensors it reads.
        output: name of the activation tensor it writes.
        attributes: integers and integer tuples, by name.
        constants: int8 and int32 arrays, by name.
    """

    opcode: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    constants: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A compiled NPU partition.

    Attributes:
        target: the target's name; a device refuses a program of another target.
        contract: name of the integer contract the parameters were folded for, see ``runtime.npu.contracts``.
        device: the target's figures that the timeline needs: ``macs_per_cycle``, ``clock_hz``,
            ``memory_bytes_per_second``, ``link_bytes_per_second``.
        tensors: every activation tensor, by name in ``TensorSpec.name``.
        inputs: names of the tensors the partition takes.
        outputs: names of the tensors it gives.
        instructions: in execution order.
        schedule: where its bytes lie and what its engines do, ``None`` in a program that only says what is computed.
    """

    target: str
    contract: str
    device: Mapping[str, float]
    tensors: tuple[TensorSpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    schedule: Schedule | None = None
