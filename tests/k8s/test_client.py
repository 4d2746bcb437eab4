"""The door to the API: a server that is too busy, a watch that has expired, and the credentials of a pod."""

import base64
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.config import incluster_config

from k8s import client
from k8s import job as jobs
from k8s import submit as submitting
from k8s.backends.rayjob import RayJobs
from k8s.client import Api
from k8s.errors import Misuse, Unreachable
from k8s.settings import Settings
from k8s.state import OK
from tests.k8s.cluster import accounts
from tests.k8s.front import Front
from tests.k8s.plane import Plane, events, until
from tests.k8s.replay import Replay
from tests.k8s.traces import RECORDINGS, Trace
from tests.k8s.waiting import Waiting

IMAGE = "registry.example/holdfast:1.2.3"
TRAIN = ("train", "recipe=digits_standard")
recorded = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings lie in shared, which is not here")


def user_token(path: Path) -> str:
    """Of a kube config."""
    return str(yaml.safe_load(path.read_text())["users"][0]["user"]["token"])


class Once:
    """Refuses each thing that is asked the first time."""

    def __init__(self) -> None:
        self.before: set[str] = set()

    def __call__(self, what: str) -> bool:
        new = what not in self.before
        self.before.add(what)
        return new


@recorded
def test_a_server_that_is_too_busy_is_asked_again_when_it_says(
    plane: Plane, crds: list[str], namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing that a submission asks is refused once: what creates, what reads and what watches."""
    token, said = user_token(accounts(plane, namespace)), list[str]()
    place = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    with Front(plane, Once()) as front:
        monkeypatch.setenv("KUBECONFIG", str(front.kubeconfig(tmp_path / "config", token, namespace)))
        words = [f"image={IMAGE}", "name=busy", "patience_minutes=1"]
        assert submitting.submit(words, TRAIN, said.append, print, False, None).code is None
        waiting = Waiting(RayJobs(Settings(image=IMAGE)), "busy")
        until(lambda: any(each.what == f"watch {place}" for each in front.asked))
        with Replay(Trace("success"), plane, namespace, "busy", 40.0):
            assert waiting.found().code == OK
    assert {f"POST {place}", f"GET {place}/busy", f"watch {place}"} <= {e.what for e in front.asked if e.refused}
    assert any("answers 429 (too many requests); trying again" in text for text in said)
    reading = [each for each in front.asked if each.what == f"GET {place}/busy"]
    assert reading[0].refused
    assert reading[1].at - reading[0].at >= 1.0, "Retry-After: 1"


@pytest.mark.parametrize("pause", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT", "soon"])
def test_no_server_is_waited_for_longer_than_an_answer(
    plane: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pause: str
) -> None:
    with Front(plane, lambda what: True, pause) as front:
        monkeypatch.setenv("KUBECONFIG", str(front.kubeconfig(tmp_path / "config", "any", "default")))
        api = Api()
        api.read_seconds = 0.2
        with pytest.raises(Unreachable, match="answers 429") as error:
            api.get("Pod", "any")
    assert error.value.status == 429
    assert len(front.asked) == 1


def started(namespace: str) -> tuple[RayJobs, str]:
    place = RayJobs(Settings(image=IMAGE))
    each = jobs.make(place.settings, TRAIN)
    assert place.start(each)
    assert place.api.namespace == namespace
    return place, each.name


@pytest.fixture
def expired(plane: Plane, crds: list[str], namespace: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every watch begins where the server remembers nothing any more; the names of those that did."""
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace)))
    begun: list[str] = []

    def version(self: Api, kind: str, name: str) -> str:
        begun.append(name)
        return "1"

    monkeypatch.setattr(Api, "_version", version)
    path = plane.path("ray.io/v1", "RayJob", namespace)
    (first, *_) = events(plane.open("GET", path, watch="true", resourceVersion="1"))
    assert (first["type"], first["object"]["code"]) == ("ERROR", 410), "what this is about"
    return begun


@recorded
def test_a_watch_that_has_expired_loses_no_end(plane: Plane, namespace: str, expired: list[str]) -> None:
    place, name = started(namespace)
    waiting = Waiting(place, name)
    with Replay(Trace("success"), plane, namespace, name, 10.0):
        assert waiting.found().code == OK
    assert name in expired


def test_a_watch_that_has_expired_is_not_asked_for_in_a_hurry(
    namespace: str, expired: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, name = started(namespace)
    naps: list[float] = []
    me, sleep = threading.current_thread(), time.sleep
    monkeypatch.setattr(
        client.time, "sleep", lambda s: naps.append(s) if threading.current_thread() is me else sleep(s)
    )
    place.wait(name, 2.0)
    monkeypatch.undo()
    assert len(naps) == 1
    assert 0 < naps[0] <= 1


@pytest.fixture
def pod(
    plane: Plane, crds: list[str], namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int | None], None]:
    """This process as in a pod; called, its token is replaced by one for so many seconds."""
    folder, config = tmp_path / "serviceaccount", accounts(plane, namespace)
    cluster = yaml.safe_load(plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    folder.mkdir()
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (folder / "namespace").write_text(namespace)
    server = urlsplit(cluster["server"])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port or 443))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(folder / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(folder / "ca.crt"))

    def renew(seconds: int | None) -> None:
        token = user_token(plane.kubeconfig_for(namespace, "holdfast-submit", seconds, config))
        (folder / "token.new").write_text(token)
        (folder / "token.new").replace(folder / "token")

    return renew


@recorded
def test_a_pod_submits_by_the_token_of_its_account(
    plane: Plane, namespace: str, pod: Callable[[int | None], None]
) -> None:
    pod(None)
    place, name = started(namespace)
    with Replay(Trace("success"), plane, namespace, name, 40.0):
        assert Waiting(place, name).found().code == OK
    with pytest.raises(Misuse, match="namespace=default: the cluster refuses"):
        RayJobs(Settings(image=IMAGE, namespace="default")).jobs()


@recorded
def test_a_pods_token_that_expires_is_read_anew(
    plane: Plane, namespace: str, pod: Callable[[int | None], None]
) -> None:
    """A kubelet renews it in its file, which the library alone looks at once a minute."""
    pod(3)
    place, name = started(namespace)
    waiting = Waiting(place, name, patience=60.0)
    until(lambda: any("does not take this token" in said for said in waiting.said))
    pod(None)
    with Replay(Trace("success"), plane, namespace, name, 40.0):
        assert waiting.found(30.0).code == OK


def test_a_pod_without_an_account_is_told_so(pod: Callable[[int | None], None]) -> None:
    with pytest.raises(Misuse, match=r"this pod has no token of a service account .*or set KUBECONFIG"):
        Api()
