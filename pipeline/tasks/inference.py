"""A network as a function from pixels to outputs by name: in torch, and as a float ONNX model."""

from pathlib import Path

import onnxruntime as ort
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.errors import ModelError, one_line
from pipeline.tasks import Infer, Pixels, Task
from runtime.adapters.image import normalize
from runtime.tensors import Tensors


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """``network`` with the weights in the safetensors file ``path``.

    Raises:
        ModelError: the file cannot be read or is damaged, or holds the weights of another network.
    """
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ModelError(f"cannot be read: {error}", where=path, fix="run with --from train") from error
    except RuntimeError as error:
        reason = one_line(error)
        raise ModelError(f"holds other weights: {reason}", where=path, fix="run with --from train") from error
    return network


def infer_torch(network: nn.Module, task: Task) -> Infer:
    """``network`` on the CPU in float32, in evaluation mode."""
    network.eval()

    def infer(pixels: Pixels) -> Tensors:
        with torch.no_grad():
            outputs = network(torch.from_numpy(normalize(pixels, task.preprocess)))
        found = [outputs[name] for name in task.output_names] if isinstance(outputs, dict) else outputs
        return {name: output.numpy() for name, output in zip(task.output_names, found, strict=True)}

    return infer


def infer_onnx(model: bytes, task: Task) -> Infer:
    """The float ONNX ``model`` in ONNX Runtime on the CPU."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])

    def infer(pixels: Pixels) -> Tensors:
        values = session.run(list(task.output_names), {task.input_name: normalize(pixels, task.preprocess)})
        return dict(zip(task.output_names, values, strict=True))

    return infer
