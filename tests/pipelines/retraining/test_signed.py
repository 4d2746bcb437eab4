"""A webhook is believed if it is signed, by the right secret, just now."""

import base64
import hashlib
import hmac

import pytest

from pipelines.retraining.signed import TOLERANCE, sign, wrong

SECRET, IDENT, AT, BODY = "hunter2", "msg-1", "1000", b'{"data": "\xc3\xa9"}'
GOOD = sign(SECRET, IDENT, AT, BODY)


def test_a_signature_is_that_of_the_standard():
    """Standard Webhooks: ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``."""
    digest = hmac.new(b"hunter2", b'msg-1.1000.{"data": "\xc3\xa9"}', hashlib.sha256).digest()
    assert f"v1,{base64.b64encode(digest).decode()}" == GOOD


@pytest.mark.parametrize("now", [1000.0, 1000.0 + TOLERANCE, 1000.0 - TOLERANCE])
def test_what_is_signed_and_new_is_believed(now):
    assert wrong(SECRET, IDENT, AT, BODY, GOOD, now) == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"secret": "hunter3"}, "its signature is wrong"),
        ({"ident": "msg-2"}, "its signature is wrong"),
        ({"timestamp": "1001"}, "its signature is wrong"),
        ({"body": BODY + b" "}, "its signature is wrong"),
        ({"signature": GOOD.removeprefix("v1,")}, "its signature is wrong"),
        ({"signature": "v1,sünde"}, "its signature is wrong"),
        ({"signature": ""}, "not signed"),
        ({"timestamp": ""}, "not signed"),
        ({"ident": ""}, "not signed"),
        ({"timestamp": "today"}, "its timestamp is no number"),
        ({"timestamp": "nan"}, "its timestamp is more than 300 s from now"),
        ({"now": 1301.0}, "its timestamp is more than 300 s from now"),
        ({"now": 699.0}, "its timestamp is more than 300 s from now"),
    ],
)
def test_anything_else_is_not(change, why):
    asked = {"secret": SECRET, "ident": IDENT, "timestamp": AT, "body": BODY, "signature": GOOD, "now": 1000.0}
    assert wrong(**{**asked, **change}) == why


def test_a_later_time_does_not_make_a_replay_new():
    assert wrong(SECRET, IDENT, "2000", BODY, GOOD, 2000.0) == "its signature is wrong"
