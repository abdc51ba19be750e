"""Settings that a stage reads only where another one says so."""

import dataclasses


def test_what_a_stage_reads_only_with_a_switch_matters_only_with_it(shop):
    first, *others = shop.stages
    shop.stages = (dataclasses.replace(first, switches=(("quantize.ladder", True, ("target", "partition")),)), *others)

    def again():
        return shop.run(stages=shop.stages)[0]

    again()
    shop.set(partition={"objective": "coverage"})
    assert again() == "train: fresh"
    shop.set(quantize={"ladder": True})
    assert "is new" in again()
    assert again() == "train: fresh"
    shop.set(partition={"objective": "latency"})
    assert "partition.objective changed coverage -> latency" in again()
