"""From ``module:callable`` and its options to a network, checked."""

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config import ModelConfig
from pipeline.errors import ModelError, UserError
from pipeline.tasks.detection.model import example_input


def build_network(model: ModelConfig, labels: int, size: tuple[int, int]) -> tuple[nn.Module, int]:
    """The network that ``model`` describes, and its stride.

    Args:
        model: factory and options.
        labels: number of classes.
        size: width and height of the network's input in pixels.

    Raises:
        ModelError: the factory is missing, refuses its options, or its network has other outputs than
            scores [1, labels, Hs, Ws] and boxes [1, 4, Hs, Ws] at one stride.
    """
    factory = _find(model.factory)
    _check_options(factory, model)
    try:
        network = factory(labels, **model.options)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{model.factory} refuses its options: {_told(error)}", where="train.model", fix="correct options"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's own code may raise
        raise ModelError(
            f"{model.factory} fails: {_told(error)}", where="train.model.factory", fix="correct it"
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelError(
            f"{model.factory} returned a {type(network).__name__}",
            where="train.model.factory",
            fix="return a torch.nn.Module",
        )
    stride = _stride(network, model.factory, labels, size)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ModelError(
            f"{model.factory} returned a network without a weight that can be trained",
            where="train.model.factory",
            fix="give it parameters that require a gradient",
        )
    return network, stride


def _find(name: str) -> Callable[..., object]:
    where = "train.model.factory"
    module_name, separator, attribute = name.partition(":")
    if not (separator and module_name and attribute):
        raise ModelError(f"{name!r} is not module:callable", where=where, fix="for example my.models:detector")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"module {module_name} cannot be imported: {error}", where=where, fix="install it, or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the user's own code may raise
        raise ModelError(
            f"module {module_name} cannot be imported: {_told(error)}", where=where, fix="correct it"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        near = get_close_matches(attribute, dir(module), 1)
        raise ModelError(
            f"{module_name} has no callable {attribute!r}",
            where=where,
            fix=f"did you mean {near[0]}?" if near else "name a function that returns the network",
        )
    return found  # type: ignore[no-any-return]


def _check_options(factory: Callable[..., object], model: ModelConfig) -> None:
    parameters = inspect.signature(factory).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    known = [name for name in parameters if name != "labels"]
    for option in model.options:
        if option not in known:
            near = get_close_matches(option, known, 1)
            raise ModelError(
                f"{option} is not an option of {model.factory}",
                where="train.model.options",
                fix=f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}",
            )


def _stride(network: nn.Module, factory: str, labels: int, size: tuple[int, int]) -> int:
    """Run once on a black image and check what comes out."""
    width, height = size
    training = network.training
    try:
        with torch.no_grad():
            outputs = network.eval()(example_input(width, height))
    except RuntimeError as error:
        raise ModelError(
            f"{factory} does not run on {width} x {height} pixels: {error}",
            where="preprocess.size",
            fix="use multiples of the network's largest stride (16 for the default detector)",
        ) from error
    except Exception as error:  # whatever the user's own code may raise
        raise ModelError(
            f"{factory} does not run: {_told(error)}", where="train.model.factory", fix="correct its forward"
        ) from error
    finally:
        network.train(training)
    scores, boxes = named_outputs(outputs, factory)
    expected = [1, labels, *scores.shape[2:]], [1, 4, *scores.shape[2:]]
    if scores.ndim != 4 or ([*scores.shape], [*boxes.shape]) != expected or not scores.numel():
        raise _wrong(factory, f"scores {[*scores.shape]} and boxes {[*boxes.shape]}", labels)
    if not (scores.is_floating_point() and boxes.is_floating_point()):
        raise _wrong(factory, f"scores of {scores.dtype} and boxes of {boxes.dtype}", labels)
    stride = width // scores.shape[3]
    if (scores.shape[3] * stride, scores.shape[2] * stride) != (width, height):
        raise ModelError(
            f"{factory} makes {scores.shape[3]} x {scores.shape[2]} cells of {width} x {height} pixels",
            where="preprocess.size",
            fix="the stride must be the same whole number in both directions",
        )
    return stride


def named_outputs(outputs: object, factory: str) -> tuple[Tensor, Tensor]:
    """``scores`` and ``boxes`` from a dict with these keys or a pair in this order.

    Raises:
        ModelError: ``outputs`` is neither.
    """
    if isinstance(outputs, Mapping):
        found: tuple[Any, ...] = (outputs.get("scores"), outputs.get("boxes"))
    else:
        found = tuple(outputs) if isinstance(outputs, (tuple, list)) else ()
    if len(found) != 2 or not all(isinstance(output, Tensor) for output in found):
        raise _wrong(factory, f"a {type(outputs).__name__}", None)
    return found[0], found[1]


def _told(error: BaseException) -> str:
    """What the user's code raised, in one line, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{said}, at {place.filename}:{place.lineno}"


def _wrong(factory: str, got: str, labels: int | None) -> ModelError:
    return ModelError(
        f"{factory} gives {got}",
        where="train.model.factory",
        fix=f"give scores [N, {labels or 'labels'}, Hs, Ws] and boxes [N, 4, Hs, Ws]",
    )
