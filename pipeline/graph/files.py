"""Reading ONNX files of any origin: what is no ONNX, and weights that lie in files beside the model."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data

from pipeline.errors import ModelError, one_line
from pipeline.files import read_whole

LARGEST_FILE = 2**31 - 1
"""Bytes of the largest message that protobuf reads."""

INLINE = 1_500_000_000
"""Bytes of weights that are read into the model; of larger models only small constants are, the rest stays outside."""

SMALL = 1 << 16
"""Bytes of a constant that is read even then: it may be a shape or a scale, which shape inference needs."""

OTHERS: Mapping[bytes, str] = MappingProxyType(
    {
        b"PK\x03\x04": "it is a zip archive, as PyTorch writes: export it with torch.onnx.export",
        b"\x80\x02": "it is a pickle, as PyTorch wrote: export it with torch.onnx.export",
        b"\x89HDF": "it is HDF5, as Keras writes: convert it with tf2onnx",
        b"version https://git-lfs": "it is a Git LFS pointer: run git lfs pull",
    }
)
"""What a file that is not ONNX may be, by how it begins, and what to do about it."""


def read(path: Path) -> onnx.ModelProto:
    """The model in ``path``, its weights with it unless they are too many for one message.

    Raises:
        ModelError: the file is missing, no ordinary file, over 2 GB, not ONNX or cut short; a name in it is no text; a
            file with weights is missing, cut short or not in the model's folder.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise ModelError(
                f"has {size} bytes; an ONNX file holds at most 2 GB",
                where=path,
                fix="save its weights as external data",
            )
        data = read_whole(path)
        model = onnx.ModelProto.FromString(data)
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror or error}", where=path) from error
    except ValueError as error:
        raise ModelError(f"cannot be read: {error}", where=ascii(str(path))) from error
    except DecodeError as error:
        fix = next((hint for start, hint in OTHERS.items() if data.startswith(start)), None)
        if fix is None and data[4:8] == b"TFL3":
            fix = "it is TensorFlow Lite: convert it with tf2onnx"
        raise ModelError(f"is not an ONNX file, or is cut short: {error}", where=path, fix=fix) from error
    if not model.graph.node:
        raise ModelError("holds no operators; it is empty or cut short", where=path)
    _refuse_names(model, path)
    _read_weights(model, path)
    return model


def _refuse_names(model: onnx.ModelProto, path: Path) -> None:
    """Raise ``ModelError`` for a name that is not UTF-8, which protobuf gives as bytes."""
    for name in (*_graph_names(model.graph), *(n for f in model.functions for n in (f.name, *_node_names(f.node)))):
        if not isinstance(name, str):
            raise ModelError(f"is not valid ONNX, or is damaged: the name {name!r} is not UTF-8", where=path)


def _graph_names(graph: onnx.GraphProto) -> Iterator[object]:
    """Every name in ``graph`` and in the graphs nested in it."""
    yield from (tensor.name for tensor in graph.initializer)
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from _node_names(graph.node)


def _node_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[object]:
    for node in nodes:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield attribute.name
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graph_names(attribute.g)


def outside(model: onnx.ModelProto) -> bool:
    """Whether weights of ``model`` were left in their files."""
    return any(uses_external_data(tensor) for tensor in model.graph.initializer)


def _read_weights(model: onnx.ModelProto, path: Path) -> None:
    """Put the weights that lie in other files into ``model``, all of them or the small ones; raises ``ModelError``."""
    kept = [tensor for tensor in _tensors(model.graph) if uses_external_data(tensor)]
    if not kept:
        return
    sizes = [_size(tensor, path) for tensor in kept]
    small = sum(sizes) + path.stat().st_size <= INLINE
    for tensor, size in zip(kept, sizes, strict=True):
        if small or size <= SMALL:
            try:
                load_external_data_for_tensor(tensor, str(path.parent))
            except (OSError, ValueError, onnx.checker.ValidationError) as error:
                what = f"keeps {tensor.name} in a file that cannot be read: {one_line(error)}"
                raise ModelError(what, where=path) from error


def _size(tensor: onnx.TensorProto, path: Path) -> int:
    """The bytes of ``tensor`` in its file, after a look at the file."""
    try:
        info = ExternalDataInfo(tensor)
    except ValueError as error:
        raise ModelError(f"says wrongly where {tensor.name} lies: {error}", where=path) from error
    beside = Path(info.location)
    folder = path.parent.resolve()
    if beside.is_absolute() or not info.location or not (folder / beside).resolve().is_relative_to(folder):
        what = f"keeps {tensor.name} in {info.location!r}, outside its folder"
        raise ModelError(what, where=path, fix="save the model with its weights beside it")
    try:
        length = (folder / beside).stat().st_size
    except OSError as error:
        what = f"keeps weights in {info.location}, which cannot be read: {error.strerror or error}"
        raise ModelError(what, where=path, fix=f"put {info.location} beside the model") from error
    start = info.offset or 0
    size = length - start if info.length is None else info.length
    if start + size > length:
        what = f"keeps weights in {info.location}, which ends before {tensor.name} does; it is cut short"
        raise ModelError(what, where=path, fix="copy it again")
    return int(size)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of ``graph`` and of the graphs nested in it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
