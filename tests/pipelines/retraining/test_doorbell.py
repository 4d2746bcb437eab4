"""MLflow's webhooks ring if they are signed, and speak of the model."""

import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from pipelines.errors import Misuse
from pipelines.retraining import doorbell, signed
from pipelines.tracking import server
from tests.pipelines.promotion import movers

SECRET = "hunter2-hunter2"


@pytest.fixture(scope="module")
def bell() -> Iterator[tuple[int, threading.Event]]:
    rung = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(doorbell.SECRET, SECRET)
        with doorbell.listening(("127.0.0.1", 0), "digits", rung) as port:
            assert port
            yield port, rung


@pytest.fixture
def port(bell: tuple[int, threading.Event]) -> int:
    return bell[0]


@pytest.fixture
def rung(bell: tuple[int, threading.Event]) -> threading.Event:
    bell[1].clear()
    return bell[1]


def about(name: str) -> bytes:
    return json.dumps({"entity": "model_version_alias", "action": "created", "data": {"name": name}}).encode()


def ring(port: int, body: bytes, secret: str = SECRET, age: float = 0.0, **changes: str) -> tuple[int, str]:
    at = str(int(time.time() - age))
    headers = {"Delivery-Id": "d-1", "Timestamp": at, "Signature": signed.sign(secret, "d-1", at, body), **changes}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", data=body, headers={f"X-MLflow-{name}": value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_believed_webhook_about_the_model_rings(port, rung):
    assert ring(port, about("digits")) == (200, "heard")
    assert rung.is_set()


@pytest.mark.parametrize("body", [about("cifar"), about("digits.retrainings"), b"{}", b"[]", b'{"data": 3}', b"digits"])
def test_what_is_about_something_else_is_heard_and_rings_nothing(port, rung, body):
    assert ring(port, body) == (200, "heard")
    assert not rung.is_set()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"secret": "hunter3"}, "its signature is wrong"),
        ({"age": 1000.0}, "its timestamp is more than 300 s from now"),
        ({"Signature": ""}, "not signed"),
        ({"Delivery-Id": "d-2"}, "its signature is wrong"),
    ],
)
def test_what_is_not_believed_is_told_so_and_rings_nothing(port, rung, how, why):
    assert ring(port, about("digits"), **how) == (401, why)
    assert not rung.is_set()


@pytest.mark.parametrize("length", ["-1", "many", ""])
def test_a_length_that_is_none_is_no_body(port, rung, length):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", headers={"Content-Length": length, "X-MLflow-Delivery-Id": "d-1"})
    assert connection.getresponse().status == 401
    connection.close()
    assert not rung.is_set()


def test_a_place_to_listen_at(monkeypatch):
    monkeypatch.setenv(doorbell.SECRET, SECRET)
    assert doorbell.check(None) is None
    assert doorbell.check("127.0.0.1:8099") == ("127.0.0.1", 8099)
    for place in ("8099", "127.0.0.1", ":8099", "127.0.0.1:http", "127.0.0.1:65536"):
        with pytest.raises(Misuse, match=f"listen={place} is no place to listen at: give host:port"):
            doorbell.check(place)
    monkeypatch.delenv(doorbell.SECRET)
    with pytest.raises(Misuse, match=f"needs the webhook's secret in {doorbell.SECRET}"):
        doorbell.check("127.0.0.1:8099")


def test_nobody_listens_twice_nor_where_nothing_is_asked_for(port, rung, monkeypatch):
    monkeypatch.setenv(doorbell.SECRET, SECRET)
    with (
        pytest.raises(Misuse, match=rf"listen=127.0.0.1:{port} cannot be listened at .*; give another port"),
        doorbell.listening(("127.0.0.1", port), "digits", rung),
    ):
        pass
    with doorbell.listening(None, "digits", rung) as nothing:
        assert nothing is None


def test_mlflows_own_webhook_rings_when_an_alias_is_set(start_server, port, rung):
    uri = start_server(
        MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=Fernet.generate_key().decode(),
        MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
        MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http,https",
    ).uri
    server.client(uri).create_webhook(
        "retrain", f"http://127.0.0.1:{port}/", ["model_version_alias.created"], secret=SECRET
    )
    movers.model(uri, "digits", count=1)
    assert rung.wait(60)
