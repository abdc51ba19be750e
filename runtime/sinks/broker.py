"""Events to an MQTT broker, with paho-mqtt (of the ``mqtt`` extra).

Topic: ``PREFIX/SOURCE/KIND``; what is no plain character of SOURCE becomes ``_``. Payload: the event as JSON, as in a
``.jsonl`` file. Quality of service 1, one event after another: none is lost and their order is kept; when a connection
breaks before a receipt has come, that event comes again, with the same ``id``, and so does what a broker had under way
to its subscribers. (Quality 2 would promise each once, but mosquitto 2.0.11 forgets at a restart what it has received
and not yet released: in a trial all 20 events that were under way were lost at each.)
"""

import json
import re
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from runtime.errors import UserError
from runtime.events import Event
from runtime.extras import install
from runtime.sinks import SinkError

if TYPE_CHECKING:
    from paho.mqtt.client import Client

QOS = 1
ACK_S = 2.0
"""Seconds that the broker has for a batch before it counts as failing; what it has got by then is not sent again."""

PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerSink:
    """Publishes events, and waits for the broker's receipt of each."""

    def __init__(self, url: str, client_id: str) -> None:
        """Publish to ``mqtt[s]://[USER:PASSWORD@]HOST[:PORT][/PREFIX]``; the connection is made later.

        Raises:
            UserError: the address is none, or paho-mqtt is not installed.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise UserError(f"is not an address ({error})", where=url) from error
        if not parts.hostname:
            raise UserError("names no host", where=url, fix="mqtt://HOST:PORT/PREFIX")
        if "+" in parts.path or "#" in url:
            raise UserError("has + or # in its prefix, which MQTT keeps for subscribers", where=url)
        self.name = f"{parts.scheme}://{parts.hostname}:{port}{parts.path}"
        self._prefix = parts.path.strip("/") or "npu-run"
        self._host, self._port = parts.hostname, port
        self._client = _client(client_id)
        if parts.username is not None:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        if parts.scheme == "mqtts":
            self._client.tls_set_context(ssl.create_default_context())
        self._client.on_publish = lambda client, data, number, *rest: self._receipts.add(number)
        self._receipts: set[int] = set()
        self._sent: dict[str, int] = {}
        self._started = False

    def open(self, mark: int | None) -> int:
        """Begin to connect, in the background; from then on paho connects again by itself."""
        if not self._started:
            self._client.connect_async(self._host, self._port, keepalive=15)
            self._client.loop_start()
            self._started = True
        return mark or 0

    def deliver(self, events: Sequence[Event]) -> int:
        """Publish events and wait for the receipts; those that were published before are not published again.

        Raises:
            SinkError: some receipt has not come in time.
        """
        ids = {event.id for event in events}
        self._sent = {key: number for key, number in self._sent.items() if key in ids}
        self._receipts.intersection_update(set(self._sent.values()))
        for event in events:
            if event.id not in self._sent:
                payload = json.dumps(event.facts(), ensure_ascii=False)
                self._sent[event.id] = self._client.publish(self._topic(event), payload, QOS).mid
        deadline = time.monotonic() + ACK_S
        while not self._receipts.issuperset(self._sent.values()):
            if time.monotonic() > deadline:
                state = "does not answer" if self._client.is_connected() else "cannot be reached"
                raise SinkError(f"the broker {state}", where=self.name)
            time.sleep(0.01)
        return 0

    def _topic(self, event: Event) -> str:
        return f"{self._prefix}/{re.sub(r'[^A-Za-z0-9._-]+', '_', event.source).strip('_')}/{event.kind}"

    def close(self) -> None:
        """Disconnect."""
        if self._started:
            self._client.disconnect()
            self._client.loop_stop()
            self._started = False


def _client(client_id: str) -> "Client":
    try:
        from paho.mqtt.client import Client  # noqa: PLC0415 - of the mqtt extra
        from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415 - of the mqtt extra
    except ModuleNotFoundError as error:
        what = "the package paho-mqtt is needed and is not installed"
        raise UserError(what, fix=install("mqtt")) from error
    client = Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
    client.reconnect_delay_set(1, 30)
    client.max_inflight_messages_set(1)
    return client
