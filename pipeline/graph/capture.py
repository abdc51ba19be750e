"""From a torch module to a float ONNX model."""

import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.graph.logs import quiet
from pipeline.graph.model import check, name_nodes


def capture(
    module: nn.Module, example: torch.Tensor, input_name: str, output_names: Sequence[str], opset: int
) -> onnx.ModelProto:
    """The float ONNX model of ``module``, exported by torch's dynamo exporter, batch norms folded, checked, named.

    Args:
        module: the network; exported in evaluation mode on the CPU.
        example: one input, float32, whose shape the model is fixed to.
        input_name: the model's input.
        output_names: the model's outputs in order.
        opset: version of the ONNX operator set.

    Raises:
        ModelError: torch cannot export the module, or the result is not valid ONNX.
    """
    kind = type(module).__name__
    module = module.eval().to("cpu").to(memory_format=torch.contiguous_format)
    try:
        with warnings.catch_warnings(), quiet("torch.onnx"), quiet("onnxscript"):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module, (example,), dynamo=True, opset_version=opset, verbose=False,
                input_names=[input_name], output_names=list(output_names),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        cause = (str(error.__cause__ or error).strip() or type(error.__cause__ or error).__name__).splitlines()[0]
        raise ModelError(f"torch.onnx.export(dynamo=True) cannot export it: {cause}", where=kind) from error
    if program is None:
        raise ModelError("torch.onnx.export returned nothing", where=kind)
    model = check(program.model_proto, kind)
    name_nodes(model)
    return model
