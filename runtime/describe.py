"""A bundle described: for scripts as a mapping, for people as lines."""

import dataclasses

from runtime.bundle import Bundle, PartitionEntry
from runtime.npu.encoding import loads
from runtime.npu.timeline import timeline
from runtime.profiling import totals


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
        "zones": [dataclasses.asdict(zone) for zone in manifest.zones],
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
    line = timeline(loads(bundle.read(partition.program)))
    return {**dataclasses.asdict(partition), "timeline": None if line is None else totals(line)}


def _estimate_line(bundle: Bundle, file: str) -> str:
    line = timeline(loads(bundle.read(file)))
    if line is None:
        return "carries no estimates"
    spent = "time per inference not known" if line.ms is None else f"{line.ms:.2f} ms per inference"
    without = f", without {', '.join(line.missing)}, which is not public" if line.missing else ""
    return f"{line.macs} MACs, {sum(line.bytes.values())} bytes moved, {spent} (estimate, {line.provenance}{without})"


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
        ("zones", ", ".join(zone.name for zone in manifest.zones) or "none"),
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
