"""A bundle described: for scripts as a mapping, for people as lines."""

import dataclasses

from runtime.bundle import Bundle, PartitionEntry
from runtime.npu.encoding import loads
from runtime.npu.program import Program
from runtime.npu.timeline import PROVENANCE, estimate


def plain(text: str) -> str:
    """``text`` for a terminal: a bundle may hold characters that move its cursor, or worse."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def facts(bundle: Bundle) -> dict[str, object]:
    """What ``npu-run info --json`` prints."""
    manifest = bundle.manifest
    return {
        "path": str(bundle.path),
        "bytes": bundle.size,
        "sha256": bundle.sha256,
        "schema": manifest.schema,
        "name": manifest.name,
        "version": manifest.version,
        "signature": signature_facts(bundle),
        "target": manifest.target,
        "contract": manifest.contract,
        "labels": manifest.labels,
        "preprocess": dataclasses.asdict(manifest.preprocess),
        "decoder": dataclasses.asdict(manifest.decoder),
        "lines": [dataclasses.asdict(line) for line in manifest.lines],
        "partitions": [_partition_facts(bundle, partition) for partition in manifest.partitions],
        "golden": None if manifest.golden is None else manifest.golden.count,
        "provenance": dict(manifest.provenance),
        "files": {name: dataclasses.asdict(entry) for name, entry in manifest.files.items()},
    }


def signature(bundle: Bundle) -> str:
    """Who signed a bundle, in a few words; said wherever a bundle is shown or run."""
    if bundle.signer is not None:
        return f"signed by {bundle.signer.name} ({bundle.signer.id}), trusted"
    if bundle.signatures:
        ids = ", ".join(signature.key[:16] for signature in bundle.signatures)
        return f"signed by key {ids}, not checked (--trust KEYS checks it)"
    return "not signed"


def signature_facts(bundle: Bundle) -> dict[str, object]:
    """Who signed: ``state`` is ``unsigned``, ``unchecked`` or ``trusted``."""
    state = "trusted" if bundle.signer else "unchecked" if bundle.signatures else "unsigned"
    by = None if bundle.signer is None else {"id": bundle.signer.id, "name": bundle.signer.name}
    return {"state": state, "keys": [signature.key for signature in bundle.signatures], "trusted": by}


def _partition_facts(bundle: Bundle, partition: PartitionEntry) -> dict[str, object]:
    if partition.program is None:
        return {**dataclasses.asdict(partition), "timeline": None}
    program = loads(bundle.read(partition.program))
    facts = {"provenance": PROVENANCE, "unknown": _unknown(program), **dataclasses.asdict(estimate(program))}
    return {**dataclasses.asdict(partition), "timeline": facts}


def _unknown(program: Program) -> list[str]:
    """The figures of the target that are not public, so count for nothing in an estimate."""
    return [name for name, value in program.device.items() if value == 0]


def _estimate_line(bundle: Bundle, file: str) -> str:
    program = loads(bundle.read(file))
    timeline, unknown = estimate(program), _unknown(program)
    amounts = f"{timeline.macs} MACs, {timeline.cycles} cycles, {timeline.bytes} bytes moved"
    without = f", without {', '.join(unknown)}, which is not public" if unknown else ""
    return f"{amounts}, {timeline.ms:.2f} ms per inference ({PROVENANCE}{without})"


def lines(bundle: Bundle) -> list[str]:
    """What ``npu-run info`` prints."""
    manifest, pre = bundle.manifest, bundle.manifest.preprocess
    golden = "none" if manifest.golden is None else str(manifest.golden.count)
    rows = [
        ("bundle", f"{manifest.name} (schema {manifest.schema}, {bundle.size} bytes)"),
        ("sha256", bundle.sha256),
        ("version", str(manifest.version)),
        ("signature", signature(bundle)),
        ("target", f"{manifest.target} (contract {manifest.contract})"),
        ("input", f"{pre.width}x{pre.height} RGB"),
        ("labels", ", ".join(manifest.labels)),
        ("lines", ", ".join(line.name for line in manifest.lines) or "none"),
        ("golden", f"{golden} vectors"),
    ]
    for index, part in enumerate(manifest.partitions):
        file = part.program or part.model
        size = manifest.files[file].size
        rows.append((f"part {index}", f"{part.device}: {len(part.nodes)} nodes, {file}, {size} bytes"))
        if part.program is not None:
            rows.append(("", _estimate_line(bundle, part.program)))
    rows += [(key, value) for key, value in manifest.provenance.items()]
    width = max(len(key) for key, _ in rows)
    return [f"{key:<{width}}  {value}" for key, value in rows]
