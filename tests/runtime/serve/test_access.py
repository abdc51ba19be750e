"""Who may see the page."""

from email.message import Message

import pytest

from runtime.errors import UserError
from runtime.serve.access import Access, parse_access

TOKEN = "0123456789abcdef"


def headers(**values):
    message = Message()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("8080", "127.0.0.1", 8080),
        ("[::1]:80", "::1", 80),
        ("localhost:0", "localhost", 0),
    ],
)
def test_addresses_of_this_machine_need_no_token(text, host, port):
    assert parse_access(text, None) == Access(host, port, None)


@pytest.mark.parametrize("text", ["0.0.0.0:8080", "[::]:8080", "192.168.1.5:80", "camera.local:80"])
def test_addresses_that_others_reach_need_one(text):
    with pytest.raises(UserError, match=r"so it needs a token \(set NPU_RUN_TOKEN, or serve at 127\.0\.0\.1\)"):
        parse_access(text, None)
    assert parse_access(text, TOKEN).token == TOKEN


@pytest.mark.parametrize("text", ["", "host", "host:x", ":80", "127.0.0.1:99999"])
def test_what_is_no_address(text):
    with pytest.raises(UserError, match="is no address to serve at"):
        parse_access(text, None)


@pytest.mark.parametrize("token", ["", "short", "0123456789abcdé0", "0123456789abcde\n"])
def test_tokens_that_are_too_weak(token):
    with pytest.raises(UserError, match="a token has at least 16 plain characters"):
        parse_access("127.0.0.1:80", token)


def test_a_token_comes_three_ways():
    access = Access("0.0.0.0", 80, TOKEN)
    assert access.admits(headers(Authorization=f"Bearer {TOKEN}"), "")
    assert access.admits(headers(Cookie=f"a=b; npu-run-token={TOKEN}"), "")
    assert access.admits(headers(), f"token={TOKEN}")
    for refused in (
        headers(),
        headers(Authorization="Bearer x"),
        headers(Cookie="npu-run-token="),
        headers(Cookie="é=;;="),
    ):
        assert not access.admits(refused, "token=")


def test_without_a_token_the_host_must_be_this_machine():
    """Else a page elsewhere, whose name leads to 127.0.0.1, could read it (DNS rebinding)."""
    access = Access("127.0.0.1", 80, None)
    assert access.admits(headers(Host="127.0.0.1:8080"), "")
    assert access.admits(headers(Host="localhost:8080"), "")
    assert access.admits(headers(Host="[::1]:8080"), "")
    assert not access.admits(headers(Host="evil.example:8080"), "")
    assert not access.admits(headers(), "")
