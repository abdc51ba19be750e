"""What makes an instruction legal: one rule function per opcode; ``OPCODES`` is the table."""

from collections.abc import Mapping
from types import MappingProxyType

from runtime.npu.rules import elementwise, movement, pooling, products
from runtime.npu.rules.call import Opcode

__all__ = ["OPCODES"]

OPCODES: Mapping[str, Opcode] = MappingProxyType(
    {**products.OPCODES, **elementwise.OPCODES, **pooling.OPCODES, **movement.OPCODES}
)
"""Every opcode by its name."""
