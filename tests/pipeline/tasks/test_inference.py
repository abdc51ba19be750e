"""Weights from files, and the same network in torch and in ONNX Runtime."""

import pytest
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import ModelError
from pipeline.tasks.inference import load_weights


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(nn.Linear(3, 2).state_dict(), path)
    assert load_weights(nn.Linear(3, 2), path).weight.shape == (2, 3)
    with pytest.raises(ModelError, match=r"holds other weights.*size mismatch") as error:
        load_weights(nn.Linear(4, 2), path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(nn.Linear(3, 2), path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(nn.Linear(3, 2), tmp_path / "nowhere")
