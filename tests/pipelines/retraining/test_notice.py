"""What came of a retraining reaches whoever asked to be told, now or with the next command."""

import json
import time
from pathlib import Path

import pytest
from urllib3.util.retry import Retry

from pipelines import storage
from pipelines.errors import Misuse
from pipelines.retraining import notice, signed
from tests.pipelines.ports import free_ports
from tests.pipelines.retraining.receiver import receiving

FOUND = {"id": "digits-7", "outcome": "promoted", "text": "digits: digits/3 is the champion", "version": 3}


@pytest.fixture(autouse=True)
def _plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, unsigned."""
    monkeypatch.setattr(Retry, "get_backoff_time", lambda self: 0.0)
    monkeypatch.delenv(notice.SECRET, raising=False)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"s3://{request.getfixturevalue('bucket')}/x" if request.param == "s3" else str(tmp_path / "x")


def waiting(place: str) -> bool:
    return bool(storage.files(place).list(f"{place}/untold"))


def test_it_is_delivered_as_json(tmp_path):
    with receiving() as one, receiving() as other:
        assert notice.tell([one.url, other.url], FOUND, str(tmp_path)) == []
    for (headers, body), *rest in (one.seen, other.seen):
        assert json.loads(body) == FOUND
        assert headers["Content-Type"] == "application/json"
        assert "X-Holdfast-Signature" not in headers
        assert not rest
    assert not waiting(str(tmp_path))


def test_who_is_busy_is_asked_again_whatever_wait_it_asks_for(tmp_path):
    with receiving(503, 429, 503) as hook:
        assert notice.tell([hook.url], FOUND, str(tmp_path)) == []
    assert len(hook.seen) == notice.TRIES
    assert {body for _, body in hook.seen} == {hook.seen[0][1]}


def test_who_does_not_take_it_is_named_without_the_secret_in_the_address(place):
    (port,) = free_ports(1)
    host = f"127.0.0.1:{port}"
    dead = [f"http://{host}/s3cret/T0", f"http://s3cret:s3cret@{host}/s3cr%C3%A9t", f"http://{host}?x=1&sig=s3cret"]
    dead += [f"http://{host}/s3cr\u00e9t/#s3cret"]
    with receiving(503, 503, 503, 503) as busy, receiving(404) as moved:
        warnings = notice.tell([*dead, busy.url, moved.url], FOUND, place)
    assert (len(busy.seen), len(moved.seen)) == (notice.TRIES, 1)
    assert len(warnings) == 6
    for warning in warnings:
        assert warning.startswith("notify=http://127.0.0.1:")
        assert warning.endswith("; the next retrain sends it again")
    assert "Connection refused" in warnings[0]
    assert "(too many 503 error responses)" in warnings[4]
    assert "(404 Not Found)" in warnings[5]
    (path,) = storage.files(place).list(f"{place}/untold")
    with storage.files(place).open(path) as file:
        kept = file.read().decode()
    for text in (*warnings, kept):
        assert not any(secret in text for secret in ("s3cr", "sig=", "hooks"))


def test_the_next_command_tells_those_that_missed_it(place):
    with receiving() as took, receiving(404, 404) as missed:
        urls = [
            took.url,
            missed.url,
            f"{took.url}/another",
        ]  # on one host: who missed it is known by all of its address
        assert len(notice.tell(urls, FOUND, place)) == 1
        (warning,) = notice.catch_up(urls, place)
        assert missed.url.removesuffix("/hooks/T0/s3cret") in warning
        assert notice.catch_up(urls, place) == []
        assert not waiting(place)
        assert notice.catch_up(urls, place) == []
    assert len(took.seen) == 2
    assert [json.loads(body) for _, body in missed.seen] == 3 * [FOUND]


def test_results_wait_in_the_order_they_came(place):
    later = {**FOUND, "id": "digits-8"}
    with receiving(404, 404, 404) as hook:
        for found in (FOUND, later):
            notice.tell([hook.url], found, place)
        assert len(notice.catch_up([hook.url], place)) == 1  # who does not take one is not tried with the next
        assert notice.catch_up([hook.url], place) == []
        assert not waiting(place)
    assert [json.loads(body) for _, body in hook.seen] == [FOUND, later, FOUND, FOUND, later]


def test_who_is_not_to_be_told_any_more_is_not(tmp_path):
    with receiving(404) as hook:
        notice.tell([hook.url], FOUND, str(tmp_path))
        assert notice.catch_up([], str(tmp_path)) == []
        assert notice.catch_up([hook.url], str(tmp_path)) == []
    assert len(hook.seen) == 1


@pytest.mark.parametrize("text", [None, "", "{}", "[]", "not JSON"])
def test_what_cannot_be_read_waits_for_nobody(tmp_path, text):
    if text is not None:
        (tmp_path / "untold").mkdir()
        (tmp_path / "untold" / "1.json").write_text(text)
    with receiving() as hook:
        assert notice.catch_up([hook.url], str(tmp_path)) == []
    assert not hook.seen


@pytest.mark.parametrize("found", [FOUND, {"outcome": "failed", "text": "digits: it did not work"}])
def test_with_a_secret_each_message_is_signed(tmp_path, monkeypatch, found):
    monkeypatch.setenv(notice.SECRET, "hunter2")
    with receiving(404) as hook:
        notice.tell([hook.url], found, str(tmp_path))
        notice.catch_up([hook.url], str(tmp_path))
    idents = set()
    for headers, body in hook.seen:
        ident, timestamp, signature = (headers[f"X-Holdfast-{name}"] for name in ("Id", "Timestamp", "Signature"))
        assert signed.wrong("hunter2", ident, timestamp, body, signature, time.time()) == ""
        assert signed.wrong("hunter3", ident, timestamp, body, signature, time.time()) == "its signature is wrong"
        idents |= {ident, json.loads(body)["id"]}
    assert len(hook.seen) == 2
    assert len(idents) == 1  # so that who was told twice knows


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("chat", "chat"),
        ("hooks.chat.com/services/s3cret", "hooks.chat.com"),
        ("ftp://host/s3cret", "ftp://host"),
        ("https:///s3cret", "https://"),
        ("https://me:s3cret@host:port/s3cret", "https://host:port"),
        ("http://[host/s3cret", "http://[host"),
    ],
)
def test_what_is_no_address_is_refused(url, shown):
    notice.check(["https://host/path", "http://127.0.0.1:8099?x=1"])
    with pytest.raises(Misuse) as caught:
        notice.check(["https://host/path", url])
    assert str(caught.value) == f"notify={shown} is no address of a webhook: give http(s)://host/path"
