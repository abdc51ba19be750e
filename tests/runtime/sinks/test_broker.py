"""Events at a real broker: each once, over its restarts and ours."""

import json
import signal
import sys
import threading

import pytest
from event_data import event, events
from real_parts import Subscriber, broker, wait_for

from runtime.errors import UserError
from runtime.sinks import SinkError
from runtime.sinks import broker as module
from runtime.sinks.broker import BrokerSink
from runtime.sinks.recorder import Batch, Recorder


@pytest.fixture
def mosquitto(tmp_path):
    with broker(tmp_path) as part:
        yield part


@pytest.fixture
def subscriber(mosquitto):
    subscriber = Subscriber(mosquitto.port)
    yield subscriber
    subscriber.close()


def url(part):
    return f"mqtt://127.0.0.1:{part.port}/shop/floor"


def test_topic_and_payload(mosquitto, subscriber):
    sink = BrokerSink(url(mosquitto), "npu-run-test")
    sink.open(None)
    sent = event(3, source="rtsp://10.0.0.7:554/Streaming/#+1", kind="enter")
    sink.deliver([sent])
    sink.close()
    topic, payload = wait_for(lambda: subscriber.got)[0]
    assert topic == "shop/floor/rtsp_10.0.0.7_554_Streaming_1/enter"
    assert json.loads(payload) == sent.facts()


def test_a_broker_that_is_restarted_gets_every_event_in_order(mosquitto, subscriber, tmp_path):
    """Events go on while it is away; the queue keeps them, and paho its half-finished ones."""
    with Recorder(tmp_path / "state", [BrokerSink(url(mosquitto), "npu-run-test")], threading.Event()) as recorder:
        for one in events(90):
            recorder.record(Batch((one,), "run", one.frame, once=False))
            if one.frame == 30:
                wait_for(lambda: subscriber.got)
                mosquitto.kill(signal.SIGTERM)  # it writes its sessions down
            if one.frame == 60:
                mosquitto.start()
        wait_for(lambda: recorder.deliveries()[0].waiting == 0)
        recorder.close(10)
    wait_for(lambda: len(set(subscriber.frames())) == 90)
    assert list(dict.fromkeys(subscriber.frames())) == list(range(90)), "in order"


def test_a_restart_of_ours_delivers_the_rest(mosquitto, subscriber, tmp_path):
    mosquitto.kill(signal.SIGTERM)
    with Recorder(tmp_path / "state", [BrokerSink(url(mosquitto), "npu-run-test")], threading.Event()) as recorder:
        recorder.record(Batch(tuple(events(5)), "run", 0, once=False))
    mosquitto.start()
    with Recorder(tmp_path / "state", [BrokerSink(url(mosquitto), "npu-run-test")], threading.Event()) as recorder:
        recorder.record(Batch(tuple(events(5, 5)), "run", 1, once=False))
        recorder.close(10)
    wait_for(lambda: len(subscriber.got) >= 10)
    assert subscriber.frames() == list(range(10))


def test_a_broker_that_is_away_is_told_and_nothing_is_published_twice(mosquitto, subscriber, monkeypatch):
    monkeypatch.setattr(module, "ACK_S", 0.3)
    sink = BrokerSink(url(mosquitto), "npu-run-test")
    sink.open(None)
    sink.deliver(events(1))
    mosquitto.pause()
    with pytest.raises(SinkError, match=r"the broker does not answer"):
        sink.deliver(events(2, 1))
    mosquitto.go_on()
    wait_for(lambda: len(subscriber.got) == 3)
    sink.deliver(events(2, 1))
    sink.deliver(events(2, 1))  # as after a note that could not be written
    sink.close()
    assert subscriber.frames() == [0, 1, 2]
    mosquitto.kill()
    gone = BrokerSink(url(mosquitto), "npu-run-other")
    gone.open(None)
    with pytest.raises(SinkError, match="the broker cannot be reached"):
        gone.deliver(events(1))
    gone.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mqtt://host:99999", "is not an address"),
        ("mqtt:///x", "names no host"),
        ("mqtt://h/a/+/b", "has \\+ or # in its prefix"),
        ("mqtt://h/a/#", "has \\+ or #"),
        ("mqtt://host:x/", "is not an address"),
    ],
)
def test_addresses_that_are_none(text, message):
    with pytest.raises(UserError, match=message):
        BrokerSink(text, "id")


def test_a_name_shows_no_password():
    sink = BrokerSink("mqtts://me:secret@host/prefix", "id")
    assert sink.name == "mqtts://host:8883/prefix"


def test_without_paho(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(
        UserError,
        match=r"paho-mqtt is needed .* \(pip install -r requirements-mqtt\.txt in the deploy",
    ):
        BrokerSink("mqtt://host", "id")
