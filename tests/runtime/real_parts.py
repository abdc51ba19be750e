"""Real servers for the tests: a broker, an RTSP server, a browser, each on loopback and stopped by its process id.

Where one is missing the test is skipped with the command that installs it, and fails in continuous integration
(``CI`` is set).
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
PACKAGES = Path(__file__).parents[2] / ".ci" / "packages"


def need(present, what):
    """Go on if ``present``; else skip, or fail where everything must be there."""
    if not present:
        packages = " ".join(PACKAGES.read_text().split())
        message = f"NOT PROVED: {what} is missing: apt-get install -y --no-install-recommends {packages}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def wait_for(condition, seconds=60, what="it"):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        time.sleep(0.02)
    return value


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Part:
    """A process of our own on a port of its own; ``start`` and ``kill`` as often as you like."""

    def __init__(self, command, port):
        self.command, self.port, self.process = command, port, None

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(self.port), what=self.command[0])
        return self

    def kill(self, number=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *error):
        self.kill()


def broker(folder):
    """mosquitto that keeps its sessions in ``folder``."""
    path = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    need(path, "mosquitto")
    port, config = free_port(), folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "user root"]
    lines += ["persistence true", f"persistence_location {folder}/", "autosave_interval 1", "autosave_on_changes true"]
    config.write_text("\n".join(lines) + "\n")
    return Part([path, "-c", str(config)], port)


class Subscriber:
    """A client with a lasting session that writes down all it gets."""

    def __init__(self, port):
        from paho.mqtt.client import Client  # noqa: PLC0415
        from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415

        self.got, ready = [], threading.Event()
        self.client = Client(CallbackAPIVersion.VERSION2, "subscriber", clean_session=False)
        self.client.on_connect = lambda client, *rest: client.subscribe("#", 2)
        self.client.on_subscribe = lambda *rest: ready.set()
        self.client.on_message = lambda client, data, message: self.got.append((message.topic, message.payload))
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert ready.wait(10)

    def ids(self):
        return [json.loads(payload)["id"] for _, payload in self.got]

    def frames(self):
        return [json.loads(payload)["frame"] for _, payload in self.got]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def rtsp_server(clip, count=1):
    """GStreamer's RTSP server that plays ``clip`` at ``/0`` and so on."""
    probe = f"import sys; sys.argv=['x']; import runpy; runpy.run_path({str(SERVER)!r}, run_name='probe')"
    elements = "from gi.repository import Gst; Gst.init(None)\nfor name in ('qtdemux', 'h264parse', 'rtph264pay'):"
    elements += "\n    assert Gst.ElementFactory.find(name), name"
    found = (
        Path(PYTHON).exists()
        and not subprocess.run(
            [PYTHON, "-c", f"{probe}\n{elements}"], capture_output=True, check=False, timeout=60
        ).returncode
    )
    need(found, "GStreamer's RTSP server")
    port = free_port()
    return Part([PYTHON, str(SERVER), str(port), str(clip), str(count)], port)


PIPES = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Runs a command with two pipes at 3 and 4, where Chromium looks for them."""


class Browser:
    """Headless Chromium, spoken to over its debugging pipe (Chrome DevTools Protocol, a NUL after each message)."""

    def __init__(self, folder, width, height, *, phone=False):
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        need(path, "Chromium")
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PIPES, str(there), str(back), path, *flags, f"--user-data-dir={folder}"],
            pass_fds=(there, back),
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._number, self._rest, self._session = 0, b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call("Page.enable")

    def call(self, method, **parameters):
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                received = os.read(self._read, 1 << 20)
                assert received, "the browser is gone"
                self._rest += received
            data, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(data)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, url):
        self.call("Page.navigate", url=url)

    def value(self, script):
        """What a piece of JavaScript gives."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)
