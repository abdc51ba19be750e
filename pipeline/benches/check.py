"""``pipeline check`` under a stopwatch: nodes per second, cost-model time, greedy against optimal, errors of estimates.

Times are of this machine and this run. Errors are against the calibration table of measured silicon, and against Arm's
Vela where it is installed.
"""

import importlib.util
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipeline.benches.rows import Row
from pipeline.checking.check import Demands, by_rules, place
from pipeline.checking.units import verdicts
from pipeline.cost import devices, hosts
from pipeline.cost.fitted import fit_of
from pipeline.cost.model import CostModel
from pipeline.cost.validation import fitting, machine, networks, silicon, vela
from pipeline.graph.opening import open_model
from pipeline.graph.view import Graph
from pipeline.targets import library
from pipeline.targets.inheritance import SHIPPED
from pipeline.targets.profile import Target
from pipeline.workspace import Progress

SIZES = (100, 1_000, 10_000)
"""Operators of the graphs that grow."""

TARGETS = ("coral-edgetpu-pcie", "ethos-u65-256", "jetson-xavier-nx-dla", "conv-only")
"""Where placements by cost and by toolchain are compared."""

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
"""Real architectures that the onnx package ships, with weights of one value."""

MODELS = ("light_shufflenet", "light_squeezenet", "light_resnet50", "light_densenet121", "light_inception_v2")

VELA = (networks.mobilenet_v1, networks.mobilenet_v2)
"""Networks that Vela estimates too."""


def rows(progress: Progress) -> Iterator[Row]:
    """All of them."""
    yield from _growing(progress)
    yield from _models(progress)
    yield from _silicon(progress)
    yield from _vela(progress)
    yield from _machine(progress)


def _growing(progress: Progress) -> Iterator[Row]:
    """Nodes per second of opening and of judging, as a graph grows."""
    progress.start(len(SIZES), "growing graphs")
    target = _target("coral-edgetpu-pcie")
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "chain.onnx"
            onnx.save(chain(size), path)
            start = time.perf_counter()
            graph = open_model(path).graph
            opened = time.perf_counter()
            verdicts(graph, by_rules(target))
            judged = time.perf_counter()
        how = f"opened in {opened - start:.2f} s, judged by every rule of {target.name} in {judged - opened:.2f} s"
        yield Row(f"check, nodes per second at {size:,}", f"{size / (judged - start):,.0f}", how)
        progress.advance()


def chain(size: int) -> onnx.ModelProto:
    """A network of ``size`` operators: convolutions, activations, additions, and every tenth one a misfit."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32), "w")
    nodes, last, kept = [], "x", "x"
    for index in range(size):
        name, out = f"n{index}", f"t{index}"
        if index % 10 == 9:
            nodes.append(helper.make_node("Elu", [last], [out], name=name))
        elif index % 5 == 3:
            nodes.append(helper.make_node("Add", [last, kept], [out], name=name))
            kept = out
        elif index % 2:
            nodes.append(helper.make_node("Relu", [last], [out], name=name))
        else:
            nodes.append(helper.make_node("Conv", [last, "w"], [out], pads=[1, 1, 1, 1], name=name))
        last = out
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 16, 16]) for name in ("x", last)]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _models(progress: Progress) -> Iterator[Row]:
    """Milliseconds of pricing, and greedy against optimal, on real architectures."""
    graphs = {name: open_model(LIGHT / f"{name}.onnx").graph for name in MODELS}
    progress.start(len(graphs) * len(TARGETS), "real models")
    for name, graph in graphs.items():
        found = dict(_placed(graph, progress))
        milliseconds = statistics.median(ms for ms, _ in found.values())
        how = f"{len(graph.nodes)} operators, all priced on NPU and host, median of {len(found)} targets"
        yield Row(f"cost model, ms for {name}", f"{milliseconds:.1f}", how)
        gains = ", ".join(f"{target} {gain:+.1%}" for target, (_, gain) in found.items() if gain is not None)
        yield Row(f"greedy above optimal, {name}", gains, "estimated latency; optimal is proven where no gap is named")


def _placed(graph: Graph, progress: Progress) -> Iterator[tuple[str, tuple[float, float | None]]]:
    """By target: milliseconds to price the graph, and by what part the greedy placement is slower than the best."""
    for name in TARGETS:
        target = _target(name)
        host = None if target.host is None else hosts.load(hosts.find(target.host, hosts.folder()))
        start = time.perf_counter()
        CostModel(target, host).price(graph)
        spent = 1e3 * (time.perf_counter() - start)
        found = place(graph, target, host, by_rules(target), Demands())
        progress.advance()
        yield name, (spent, found.baseline.ms / found.best.ms - 1 if found.priced.by_cost else None)


def _silicon(progress: Progress) -> Iterator[Row]:
    """By chip, the mean absolute error against the calibration table."""
    progress.start(0, "calibration rows")
    by_engine: dict[tuple[str, str], list[silicon.Answer]] = {}
    for answer in silicon.answers(silicon.table()):
        engine = "host" if answer.row.on_host else "NPU"
        by_engine.setdefault((answer.row.target, engine), []).append(answer)
        progress.advance()
    for (name, engine), answers in by_engine.items():
        kinds = ", ".join(sorted({str(answer.provenance) for answer in answers}))
        how = f"mean absolute error of {len(answers)} measured rows ({kinds})"
        start = fit_of(name)
        if engine == "NPU" and start is not None and len(answers) > len(start.constants):
            alone = fitting.left_out([answer.row for answer in answers], start)
            how += f"; {_mean(alone)} where each row is predicted from the others"
        yield Row(f"against silicon, {name}, {engine}", _mean([answer.error for answer in answers]), how)


def _mean(errors: Sequence[float]) -> str:
    return f"{statistics.mean(abs(error) for error in errors):.1%}"


def _vela(progress: Progress) -> Iterator[Row]:
    """Errors of the cycles of Ethos-U against Vela's, where Vela and LiteRT are installed."""
    if any(importlib.util.find_spec(name) is None for name in ("ethosu", "ai_edge_litert")):
        yield Row("against Vela", "-", "needs: pip install ethos-u-vela ai-edge-litert")
        return
    progress.start(len(vela.SYSTEMS) * len(VELA), "Vela")
    with tempfile.TemporaryDirectory() as folder:
        for name, system in vela.SYSTEMS.items():
            for make in VELA:
                found = vela.compare(make, system, devices.device(_target(name)), Path(folder))
                how = f"cycles against Vela's; Spearman of {found.matched} operators {found.rank:.3f}"
                yield Row(f"{name}, {make.__name__}", f"{found.error:+.1%}", how)
                progress.advance()


def _machine(progress: Progress) -> Iterator[Row]:
    """This machine's profile, measured now, against MobileNet v2 in ONNX Runtime."""
    progress.start(0, "this machine")
    found = machine.time_network(networks.mobilenet_v2)
    how = f"int8, one thread: {found.predicted_ms:.2f} ms predicted, {found.int8_ms:.2f} measured"
    yield Row("this machine, MobileNet v2", f"{found.error:+.1%}", f"{how} (float: {found.float_ms:.2f})")


def _target(name: str) -> Target:
    return library.load(SHIPPED / f"{name}.yaml")
