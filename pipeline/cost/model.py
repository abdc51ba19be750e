"""What a whole graph costs on a target: each operator on either device, each tensor that crosses, each launch.

A ``CostModel`` prices every operator and every tensor of a graph once; a placement's total is then a sum. The first
is made for whole models (20 ms for a MobileNet), the second for partitioners, which ask thousands of times.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.cost import devices, hosts
from pipeline.cost.bands import HOST_MEASURED, HOST_UNVERIFIED, device_band
from pipeline.cost.fitted import Fit, fit_of
from pipeline.cost.nouns import Device, LayerCost, Provenance, Work
from pipeline.cost.work import works
from pipeline.graph.view import Graph
from pipeline.targets.profile import Target


@dataclass(frozen=True)
class Crossing:
    """A tensor that goes from one device to the other, once however many read it: bytes and milliseconds.

    ``ms`` counts the link and the copy into the other layout; ``None`` when the link is not public.
    """

    bytes: int
    ms: float | None


@dataclass(frozen=True)
class Prices:
    """What everything in one graph costs on one target.

    Attributes:
        works: the operators, in order; a clamp that is fused has no entry of its own.
        npu: what each costs on the NPU, by node name.
        cpu: what each costs on the host.
        crossings: what each tensor costs that could cross, by its name on the wire.
        launch_ms: of one NPU partition, its command stream included; ``None`` when not public.
        inference_ms: of one inference that uses the NPU at all; fitted, else 0.
    """

    works: tuple[Work, ...]
    npu: Mapping[str, LayerCost]
    cpu: Mapping[str, LayerCost]
    crossings: Mapping[str, Crossing]
    launch_ms: float | None
    inference_ms: float


@dataclass(frozen=True)
class Totals:
    """What one placement costs.

    Attributes:
        ms: milliseconds; ``None`` when an operator's time cannot be said where it is placed.
        low_ms, high_ms: the band around it.
        npu_ms, cpu_ms, crossing_ms, launch_ms: its parts.
        bytes: moved, by memory.
        crossing_bytes: over the link.
        relative_energy: in arbitrary units, comparable between placements and devices.
        energy_mj: rated power times time, of the NPU while it computes, is started and exchanges tensors, and of the
            host while it computes; of the module where that is rated as a whole; fitted where it was measured. ``None``
            when the power of something that the placement uses is not known.
        known_energy_mj: as ``energy_mj``, of those whose power is known.
        provenance: ``a priori``, ``fitted`` or ``held out``.
        missing: figures that are not public; the time is a lower bound as far as they count.
        energy_missing: whose power is not known though the placement uses it.
    """

    ms: float | None
    low_ms: float | None
    high_ms: float | None
    npu_ms: float | None
    cpu_ms: float | None
    crossing_ms: float
    launch_ms: float
    bytes: Mapping[str, int]
    crossing_bytes: int
    relative_energy: float
    energy_mj: float | None
    provenance: Provenance
    missing: tuple[str, ...]
    energy_missing: tuple[str, ...] = ()
    known_energy_mj: float | None = None


class CostModel:
    """Prices graphs on one target with its host.

    Args:
        target: the chip.
        host: the processor beside it; ``None`` when nothing is known of it, then fallbacks have no time.
        fit: constants fitted to the chip; those of ``pipeline.cost.fitted`` unless given.
    """

    def __init__(self, target: Target, host: hosts.HostProfile | None, fit: Fit | None = None) -> None:
        """Take the target's figures; see the class."""
        self.fit = fit or fit_of(target.name)
        self.device = _with_fit(devices.device(target), self.fit)
        self.host = host

    def price(self, graph: Graph) -> Prices:
        """What every operator and tensor of ``graph`` costs; raises ``ModelError`` when a shape is not static."""
        return self.price_works(works(graph))

    def price_works(self, items: Sequence[Work]) -> Prices:
        """What ``items``, in this order, and the tensors between them cost."""
        names = [work.name for work in items]
        npu = {n: self._measured(c) for n, c in zip(names, devices.costs(items, self.device), strict=True)}
        cpu = {work.name: self.on_host(work) for work in items}
        sizes = {tensor: work.out_bytes // len(work.outputs) for work in items for tensor in work.outputs}
        sizes |= {tensor: count for work in items for tensor, count in zip(work.inputs, work.in_bytes, strict=True)}
        crossings = {tensor: self.crossing(count) for tensor, count in sizes.items()}
        fitted = None if self.fit is None else self.fit.inference_ms
        return Prices(tuple(items), npu, cpu, crossings, self.launch_ms(), fitted or 0.0)

    def on_npu(self, work: Work) -> LayerCost:
        """What ``work`` would cost on the NPU in the middle of others."""
        return self._measured(devices.cost(work, self.device))

    def on_host(self, work: Work) -> LayerCost:
        """What ``work`` costs on the host."""
        return LayerCost(None, None, missing=("host",)) if self.host is None else hosts.cost(work, self.host)

    def crossing(self, count: int) -> Crossing:
        """What it costs to move a tensor of ``count`` bytes to the other device, and into the other's layout."""
        link = self.device.get("link_bytes_per_second")
        copy = None if self.host is None else self.host.get("bytes_per_second")
        if link is None:
            return Crossing(count, None)
        return Crossing(count, 1e3 * count / link + (0.0 if copy is None else 1e3 * 2 * count / copy))

    def launch_ms(self) -> float | None:
        """What it costs to start one partition: the driver's time and the commands that go over the link."""
        launch, commands = self.device.get("launch_s"), self.device.get("command_stream_bytes")
        link = self.device.get("link_bytes_per_second")
        sent = 1e3 * commands / link if commands is not None and link is not None else None
        if launch is None:
            return sent
        return 1e3 * launch + (sent or 0.0)

    def total(self, prices: Prices, on_npu: Collection[str], partitions: int, crossing: Collection[str]) -> Totals:
        """What a placement costs.

        Args:
            prices: of the graph.
            on_npu: names of the nodes on the NPU; all others are on the host.
            partitions: how many NPU partitions there are.
            crossing: names on the wire of the tensors that cross, inputs and outputs of the model included.
        """
        chosen = [
            (w.name in on_npu, prices.npu[w.name] if w.name in on_npu else prices.cpu[w.name]) for w in prices.works
        ]
        npu_ms = _sum([c for inside, c in chosen if inside])
        cpu_ms = _sum([c for inside, c in chosen if not inside])
        crossed = [prices.crossings[name] for name in crossing]
        crossing_ms = sum(c.ms or 0.0 for c in crossed)
        launch_ms = partitions * (prices.launch_ms or 0.0) + (prices.inference_ms if partitions else 0.0)
        low, high = self._band(npu_ms, cpu_ms, crossing_ms + launch_ms)
        known = npu_ms is not None and cpu_ms is not None
        relative = sum(c.relative_energy or 0.0 for _, c in chosen)
        spent, without = self._energy(npu_ms, cpu_ms, crossing_ms + launch_ms if partitions else 0.0, relative)
        missing = dict.fromkeys(m for _, c in chosen for m in c.missing)
        missing |= dict.fromkeys(["link_bytes_per_second"] if any(c.ms is None for c in crossed) else [])
        missing |= dict.fromkeys(["launch_s"] if partitions and not self._launch_known(prices) else [])
        return Totals(
            (npu_ms or 0.0) + (cpu_ms or 0.0) + crossing_ms + launch_ms if known else None,
            low, high, npu_ms, cpu_ms, crossing_ms, launch_ms, _bytes([c for _, c in chosen]),
            sum(c.bytes for c in crossed), relative, None if without else spent,
            Provenance.A_PRIORI if self.fit is None or not partitions else Provenance.HELD_OUT, tuple(missing), without,
            spent,
        )  # fmt: skip

    def _launch_known(self, prices: Prices) -> bool:
        """Whether starting the device is in the numbers, as a public figure or in the fit of an inference."""
        return self.device.get("launch_s") is not None or bool(prices.inference_ms)

    def _measured(self, cost: LayerCost) -> LayerCost:
        """``cost`` with its energy by fitted constants, where there are any."""
        if self.fit is None or self.fit.static_w is None or cost.ms is None:
            return cost
        dynamic = (self.fit.unit_mj or 0.0) * (cost.relative_energy or 0.0)
        return replace(cost, energy_mj=self.fit.static_w * cost.ms + dynamic)

    def _energy(
        self, npu_ms: float | None, cpu_ms: float | None, other_ms: float, relative: float
    ) -> tuple[float | None, tuple[str, ...]]:
        """Millijoules of what is known, and whose power is not; ``other_ms``: crossings and launches."""
        if npu_ms is None or cpu_ms is None:
            return None, ()
        module, spent = self.device.get("module_power_w"), npu_ms + cpu_ms + other_ms
        if self.fit is not None and self.fit.static_w is not None:
            return self.fit.static_w * spent + (self.fit.unit_mj or 0.0) * relative, ()
        if module is not None:
            return module * spent, ()
        watts = {"power_w": self.device.get("power_w"), "host power_w": None if self.host is None else self.host.watts}
        used = {"power_w": npu_ms + other_ms, "host power_w": cpu_ms}
        known = [used[name] * power for name, power in watts.items() if power is not None and used[name]]
        return sum(known) if known else None, tuple(n for n, power in watts.items() if power is None and used[n])

    def _band(self, npu_ms: float | None, cpu_ms: float | None, other: float) -> tuple[float | None, float | None]:
        """Low and high milliseconds: each device's part with its own band; crossings and launches as the device's."""
        if npu_ms is None or cpu_ms is None:
            return None, None
        device = device_band(self.device.model) if self.fit is None else self.fit.band
        host = HOST_MEASURED if self.host is not None and self.host.measured else HOST_UNVERIFIED
        low, high = device.around(npu_ms + other)
        host_low, host_high = host.around(cpu_ms)
        return low + host_low, high + host_high


def _with_fit(device: Device, fit: Fit | None) -> Device:
    """``device`` with the fitted constants among its figures."""
    if fit is None:
        return device
    extra = {
        "effective_share": fit.share, "tops_int8": fit.tops, "link_bytes_per_second": fit.link,
        "operator_s": None if fit.operator_ms is None else fit.operator_ms / 1e3,
    }  # fmt: skip
    return Device(device.name, device.model, {**device.figures, **{k: v for k, v in extra.items() if v is not None}})


def _sum(costs: Sequence[LayerCost]) -> float | None:
    """Milliseconds of ``costs``, ``None`` when one is not known."""
    times = [cost.ms for cost in costs]
    return None if any(ms is None for ms in times) else sum(ms for ms in times if ms is not None)


def _bytes(costs: Sequence[LayerCost]) -> dict[str, int]:
    moved: dict[str, int] = {}
    for cost in costs:
        for memory, count in cost.bytes.items():
            moved[memory] = moved.get(memory, 0) + count
    return moved
