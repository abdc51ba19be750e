"""A program: a compiled NPU partition. Its file format is in ``runtime.npu.encoding``.

Every number that the arithmetic needs is folded into the instructions by the compiler, so that the device never
sees a floating-point scale. Opcodes, their attributes and constants (NCHW or, one row high, NCL; N = 1; activations
of the contract's type):

======================  =====================================================================================
opcode                  attributes; constants
======================  =====================================================================================
``conv2d``              strides (2), pads (top, left, bottom, right), dilations (2), group, act_min, act_max;
                        weight int8 [O, I/group, kh, kw], bias int32 [O] (or int64 where accumulators are wider),
                        multiplier [O], shift [O]
``conv_transpose2d``    the same; pads are cut off the result
``fully_connected``     act_min, act_max; weight int8 [O, K], bias int32 [O], multiplier [O], shift [O]
``matmul``              act_min, act_max; multiplier [1], shift [1]; two activations [..., M, K] and [..., K, N]
``add``, ``sub``        left_shift, act_min, act_max; multiplier [3], shift [3]: first, second, output; where the
                        contract adds in float32, left_shift 0 and [2]: first and second over the output
``mul``                 act_min, act_max; multiplier [1], shift [1]
``maximum, minimum``    none; all tensors have the same scale and zero point
``prelu``               act_min, act_max; multiplier [2], shift [2]: positive and negative side; input and slope
``requantize``          act_min, act_max; multiplier [1], shift [1]
``lookup``              table [256] of the activations' type, indexed from the smallest activation on
``softmax``             axis, diff_min; multiplier int32 [1], shift [1]; the output has scale 1/256
``sigmoid, tanh``       int16: factor, right_shift of the input; the output has scale 1/32768
``softmax_tables``      int16: axis; multiplier [1], shift [1], exp and reciprocal int16 [513]; scale 1/32768
``max_pool``            kernel (2), strides (2), pads (4)
``average_pool``        kernel (2), strides (2), pads (4); padding is not counted
``mean``                axes; multiplier [1], shift [1] of s_x / s_y (the kernel folds 1/n where the contract says so)
``reduce_sum``          axes; multiplier [1], shift [1] of s_x / s_y
``reduce_max, _min``    axes
``constant``            no inputs; value
``resize_nearest``      rows int32 [Hout], columns int32 [Wout]: the source index of every output index
``resize_linear``       for rows and columns: _low, _high (source indices) and _weight (of 1/1024), int32
``concat``              axis; all inputs have the output's scale and zero point
``reshape``             the output's shape is the tensor's
``transpose``           permutation
``slice``               starts, steps, one per axis; the output's shape says how many
``pad``                 pads (before every axis, then behind), value
``depth_to_space``      block, columns_first (ONNX's mode CRD)
``space_to_depth``      block
======================  =====================================================================================

``multiplier`` m and ``shift`` e stand for the real factor ``m * 2**(e - bits)`` with the contract's width ``bits``
(31 in TensorFlow Lite): m is 0 (with e = 0) or lies in [2**(bits - 1), 2**bits - 1], e in [-31, 30] (shifted ``add``
and ``sub``: [-31, 0]); both are int32, m of a wider contract int64. Zero points are those of the tensors. An opcode
without multiplier needs equal scales and zero points on both sides, except ``lookup`` and ``constant``.
``runtime.npu.rules`` and ``runtime.npu.verify`` hold the full rules.
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
