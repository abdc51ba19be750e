"""Queues between threads: bounded, fair, and either lossless or newest-only."""

import threading

from runtime.streams.lanes import Lanes


def drain(lanes):
    items = []
    while (item := lanes.get()) is not None:
        items.append(item)
    return items


def test_a_waiting_lane_loses_nothing_and_keeps_order():
    lanes = Lanes(["wait"], 2)
    most = []

    def produce():
        for number in range(200):
            lanes.put(0, number)
            most.append(len(lanes))
        lanes.end(0)

    thread = threading.Thread(target=produce)
    thread.start()
    assert [item for _, item in drain(lanes)] == list(range(200))
    thread.join()
    assert max(most) <= 2
    assert lanes.dropped == [0]


def test_a_latest_lane_holds_the_newest_and_counts_the_others():
    lanes = Lanes(["latest"], 4)
    for number in range(10):
        assert lanes.put(0, number)
    lanes.end(0)
    assert drain(lanes) == [(0, 9)]
    assert lanes.dropped == [9]


def test_lanes_take_turns():
    lanes = Lanes(["wait", "wait", "latest"], 3)
    for number in range(3):
        lanes.put(0, number)
        lanes.put(1, number)
    lanes.put(2, 0)
    for lane in range(3):
        lanes.end(lane)
    assert [lane for lane, _ in drain(lanes)] == [0, 1, 2, 0, 1, 0, 1]


def test_closing_frees_who_puts_and_who_gets():
    full, empty, answers = Lanes(["wait"], 1), Lanes(["wait"], 1), []
    full.put(0, "first")
    threads = [
        threading.Thread(target=lambda: answers.append(full.put(0, "second"))),
        threading.Thread(target=lambda: answers.append(empty.get())),
    ]
    for thread in threads:
        thread.start()
    full.close()
    empty.close()
    for thread in threads:
        thread.join(5)
    assert sorted(map(str, answers)) == ["False", "None"]
    assert full.get() is None
