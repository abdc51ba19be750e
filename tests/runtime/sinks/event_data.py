"""Events for the sinks' tests."""

from runtime.events import Event


def event(number, **changes):
    facts = {
        "id": f"{number:032x}",
        "kind": "crossing",
        "source": "door",
        "frame": number,
        "time_s": number / 10,
        "name": "gate",
        "track": number,
        "direction": "in",
    }
    return Event(**{**facts, **changes})


def events(count, start=0):
    return [event(number) for number in range(start, start + count)]
