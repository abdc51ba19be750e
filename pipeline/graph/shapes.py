"""Shapes of a model of any origin: its open dimensions fixed, everything else inferred.

A dimension is open when the model gives it a name instead of a number, or nothing at all; then its name here is
``TENSOR.AXIS``. The user fixes it by its name (``--dim NAME=N``); the batch, which is 1 on a device, is fixed to 1
where the user says nothing.
"""

from collections.abc import Iterable, Iterator, Mapping

import onnx
import onnx_ir as ir
from onnxscript import optimizer

from pipeline.errors import ModelError, nearest, one_line
from pipeline.graph.files import outside
from pipeline.graph.logs import quiet
from pipeline.graph.nouns import Graph, Tensor
from pipeline.graph.peer import TYPES, refusal, session
from pipeline.graph.protos import constants, reads
from runtime.delegates.cpu import LOAD_ERRORS

NO_NAMES = frozenset({"?", "none", "-1", "unk", "unknown"})
"""What exporters call any dimension that is not fixed, in lower case; each is one of its own."""

BATCH_NAMES = frozenset({"n", "b", "bs"})
"""What exporters call a batch that is not fixed, in lower case, beside names with ``batch`` in them."""

ENOUGH = 8
"""Rounds of inference after which open dimensions that depend on each other must be fixed."""

SHOWN = 4
"""Open dimensions that an error lists one by one."""

_SAME_SHAPE = frozenset({"QuantizeLinear", "DequantizeLinear"})

Fixed = Mapping[str, int]
"""The sizes of open dimensions by name."""


def settle(model: onnx.ModelProto, dims: Fixed, where: object) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """``model`` with every shape that can be known, and what the user must be told about them.

    Raises:
        ModelError: ``dims`` has a name that the model has not, or a size below 1; the operators contradict each other;
            their shapes are no ONNX.
    """
    _sane(dims, where)
    fixed = dict(dims)
    notes = _fix_inputs(model, fixed)
    model, told = infer(model, where)
    if not _complete(model):
        model, _ = infer(_with_folded_shapes(model), where)
    if not _complete(model) and not outside(model) and any(n.domain not in ("", "ai.onnx") for n in model.graph.node):
        model, _ = infer(_with_shapes_of_runtime(model), where)
    seen = _named(model)
    for _ in range(ENOUGH):
        if not _fix_values(model, fixed):
            break
        model, _ = infer(model, where)
        seen |= _named(model)
    unknown = [name for name in dims if name not in seen and name not in notes.used]
    if unknown:
        raise ModelError(
            f"has no open dimension {unknown[0]}",
            where=where,
            fix=nearest(unknown[0], sorted({*seen, *notes.used}), "open"),
        )
    return model, (*notes.told, *told)


class _Notes:
    """What fixing the inputs came to: the dimensions met, and what to tell about them."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.told: list[str] = []


def _sane(dims: Fixed, where: object) -> None:
    for name, size in dims.items():
        if size < 1:
            raise ModelError(f"cannot have dimension {name} of {size}", where=where, fix=f"--dim {name}=1 or more")


def _fix_inputs(model: onnx.ModelProto, fixed: dict[str, int]) -> _Notes:
    """Give the open dimensions of the inputs their sizes; the batch, where it is open, is added to ``fixed`` as 1."""
    notes = _Notes()
    constant = {i.name for i in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constant]
    for value in inputs:
        for axis, dim in enumerate(_dims(value)):
            if not dim.HasField("dim_value") or dim.dim_value < 0:
                named = dim.dim_param and dim.dim_param.lower() not in NO_NAMES
                dim.dim_param = dim.dim_param if named else f"{value.name}.{axis}"
                notes.used.add(dim.dim_param)
    for value in inputs:
        shape = _dims(value)
        if len(shape) > 1 and shape[0].dim_param and shape[0].dim_param not in fixed and _is_batch(value):
            name = shape[0].dim_param
            fixed[name] = 1
            notes.told.append(f"batch size {name} is taken as 1; --dim {name}=N takes another")
    for value in inputs:
        _apply(value, fixed)
    return notes


def _is_batch(value: onnx.ValueInfoProto) -> bool:
    """Whether the first dimension of an input is its batch: by its name, or because it is an image's."""
    shape = _dims(value)
    name = shape[0].dim_param
    known = "batch" in name.lower() or name.lower() in BATCH_NAMES or name == f"{value.name}.0"
    return known or len(shape) == 4


def _fix_values(model: onnx.ModelProto, fixed: Fixed) -> bool:
    """Fix open dimensions of inner tensors and outputs, which depend on data; whether there were any."""
    found = [_apply(value, fixed) for value in (*model.graph.value_info, *model.graph.output)]
    return any(found)


def _apply(value: onnx.ValueInfoProto, fixed: Fixed) -> bool:
    done = False
    for dim in _dims(value):
        if dim.dim_param in fixed:
            dim.dim_value = fixed[dim.dim_param]
            done = True
    return done


def _dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim) if value.type.HasField("tensor_type") else []


def _named(model: onnx.ModelProto) -> set[str]:
    """The names of all open dimensions, after each has got one."""
    names = set()
    for value in (*model.graph.value_info, *model.graph.output):
        for axis, dim in enumerate(_dims(value)):
            if not dim.HasField("dim_value"):
                dim.dim_param = dim.dim_param or f"{value.name}.{axis}"
                names.add(dim.dim_param)
    return names


def _complete(model: onnx.ModelProto) -> bool:
    """Whether every live tensor has a shape without open dimensions."""
    return not _incomplete(model)


def _incomplete(model: onnx.ModelProto) -> list[str]:
    """The live values without a shape or with open dimensions."""
    known = {v.name: v for v in (*model.graph.value_info, *model.graph.output)}

    def closed(name: str) -> bool:
        value = known.get(name)
        if value is None or not value.type.HasField("tensor_type"):
            return value is not None and value.type.WhichOneof("value") is not None
        return value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in _dims(value))

    return [name for name in _live_values(model) if not closed(name)]


def _with_folded_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the shapes that are known once the operators that compute shapes are computed (by onnxscript)."""
    folded = ir.from_proto(model)
    with quiet("onnxscript"):
        optimizer.fold_constants(folded, onnx_shape_inference=True)
    found = {
        str(v.name): (int(v.dtype), [int(str(d)) for d in v.shape])
        for node in folded.graph
        for v in node.outputs
        if v.shape is not None and v.shape.is_static() and v.dtype is not None
    }
    return _with_shapes(model, found)


def _with_shapes_of_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the shapes that ONNX Runtime knows of its own operators' results."""
    asked = onnx.ModelProto()
    asked.CopyFrom(model)
    own = {o.name for o in model.graph.output}
    del asked.graph.value_info[:]
    asked.graph.output.extend(onnx.ValueInfoProto(name=name) for name in _incomplete(model) if name not in own)
    try:
        opened = session(asked.SerializeToString())
    except LOAD_ERRORS:
        return model
    found = {
        o.name: (TYPES[o.type], [int(d) for d in o.shape])
        for o in opened.get_outputs()
        if o.type in TYPES and all(isinstance(d, int) for d in o.shape)
    }
    return _with_shapes(model, found)


def _with_shapes(model: onnx.ModelProto, found: Mapping[str, tuple[int, list[int]]]) -> onnx.ModelProto:
    """``model`` with element types and shapes written into its value_info and outputs."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    known = {value.name: value for value in (*result.graph.value_info, *result.graph.output)}
    for name, (kind, shape) in found.items():
        info = onnx.helper.make_tensor_value_info(name, kind, shape)
        if name in known:
            known[name].CopyFrom(info)
        else:
            result.graph.value_info.append(info)
    return result


def infer(model: onnx.ModelProto, where: object) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """``model`` with the shapes that ONNX's inference finds, and what to tell of it.

    Shapes that the model declares and its operators contradict are forgotten. Where the inference itself fails,
    ONNX Runtime has the last word on whether the model is valid.

    Raises:
        ModelError: the operators do not fit together.
    """
    try:
        return _inferred(model, strict=True), ()
    except onnx.shape_inference.InferenceError as error:
        first = one_line(error)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    declared = {o.name: o for o in model.graph.output}
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    note = f"shapes that the model declares are not those that its operators make ({first}); they were inferred anew"
    try:
        return _inferred(bare, strict=True), (note,)
    except onnx.shape_inference.InferenceError as error:
        if outside(model) or refusal(model.SerializeToString()) is not None:
            raise ModelError(f"is not valid ONNX: {one_line(error)}", where=where) from error
        cause = one_line(error)
    loose = _inferred(bare, strict=False)
    for value in loose.graph.output:
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
            value.CopyFrom(declared[value.name])
    return loose, (f"ONNX Runtime takes the model, ONNX's shape inference does not: {cause}",)


def _inferred(model: onnx.ModelProto, *, strict: bool) -> onnx.ModelProto:
    """The model with inferred shapes; ONNX Runtime's own QuantizeLinear is inferred as ONNX's Cast, its equal in shape.

    Raises ``InferenceError`` when strict.
    """
    swapped = [node for node in model.graph.node if node.domain == "com.microsoft" and node.op_type in _SAME_SHAPE]
    if not swapped:
        return onnx.shape_inference.infer_shapes(model, strict_mode=strict, data_prop=True)
    stand_in = onnx.ModelProto()
    stand_in.CopyFrom(model)
    known = constants(model.graph)
    for node in stand_in.graph.node:
        if node.domain == "com.microsoft" and node.op_type in _SAME_SHAPE:
            to = int(onnx.TensorProto.FLOAT)
            if node.op_type == "QuantizeLinear":
                zero = known.get(node.input[2]) if len(node.input) > 2 else None
                to = int(onnx.TensorProto.UINT8 if zero is None else zero.data_type)
            node.CopyFrom(onnx.helper.make_node("Cast", [node.input[0]], list(node.output), name=node.name, to=to))
    found = onnx.shape_inference.infer_shapes(stand_in, strict_mode=strict, data_prop=True)
    del found.graph.node[:]
    found.graph.node.extend(model.graph.node)
    return found


def refuse_open(graph: Graph, model: onnx.ModelProto, where: object) -> None:
    """Raise ``ModelError`` when a tensor of ``graph``, the view of ``model``, has no shape, an open dimension or none.

    Of open dimensions those are named that others come from.
    """
    infos = {v.name: v for v in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    origins: dict[str, str] = {}
    opened: set[str] = set()
    _look([(tensor, "an input", True) for tensor in graph.inputs], infos, origins, opened, where)
    for node in graph.nodes:
        by = f"made by {node.op} {node.name}"
        first = opened.isdisjoint(t.name for t in node.activations)
        _look([(tensor, by, first) for tensor in node.outputs], infos, origins, opened, where)
    if origins:
        listed = ", ".join(f"{dim} (of {origin})" for dim, origin in list(origins.items())[:SHOWN])
        more = f" and {len(origins) - SHOWN} more" if len(origins) > SHOWN else ""
        fix = " ".join(f"--dim {dim}=N" for dim in list(origins)[:SHOWN])
        raise ModelError(f"has open dimensions: {listed}{more}", where=where, fix=fix)


def _look(
    made: Iterable[tuple[Tensor, str, bool]],
    infos: Mapping[str, onnx.ValueInfoProto],
    origins: dict[str, str],
    opened: set[str],
    where: object,
) -> None:
    """Add the open tensors among ``made`` to ``opened``, and the dimensions of those that are first to ``origins``.

    Raises ``ModelError`` for a tensor that holds nothing, and for one without shape that no open dimension explains.
    """
    for tensor, by, first in made:
        info = infos.get(tensor.name, onnx.ValueInfoProto())
        if info.type.WhichOneof("value") not in (None, "tensor_type"):
            continue
        if tensor.shape is None:
            opened.add(tensor.name)
            if first:
                fix = "give the model a value_info with its shape, or cut the model before it"
                raise ModelError(f"{tensor.name} ({by}) has no known shape", where=where, fix=fix)
            continue
        for axis, dim in enumerate(tensor.shape):
            if dim == 0:
                raise ModelError(f"{tensor.name} ({by}) holds nothing: its dimension {axis} is 0", where=where)
            if dim is None:
                opened.add(tensor.name)
                if first:
                    name = _dims(info)[axis].dim_param if axis < len(_dims(info)) else f"{tensor.name}.{axis}"
                    origins.setdefault(name, f"{tensor.name}, {by}")


def _live_values(model: onnx.ModelProto) -> Iterator[str]:
    """The values that nodes make on the way to an output, the last first."""
    wanted = {o.name for o in model.graph.output}
    for node in reversed(model.graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(reads(node))
            yield from (name for name in node.output if name in wanted)
