"""`holdfast submit` against a real API server, with the rights of its service account and no more."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import job as jobs
from k8s import leases, record
from k8s import submit as submitting
from k8s.backends.rayjob import RayJobs
from k8s.errors import Misuse, Unreachable
from k8s.follow import patiently
from k8s.settings import Settings
from k8s.state import ENDED, FAILURE, LOST, MISUSE, OK, STOPPED
from tests.k8s.cluster import accounts
from tests.k8s.plane import Plane, until
from tests.k8s.replay import Replay
from tests.k8s.test_state import ENDS, INVALID
from tests.k8s.traces import RECORDINGS, Trace
from tests.k8s.waiting import Waiting

IMAGE = "registry.example/holdfast:1.2.3"
TRAIN = ("train", "recipe=digits_standard")
SPEED = 40.0
recorded = pytest.mark.skipif(not RECORDINGS.is_dir(), reason="the recordings lie in shared, which is not here")


@pytest.fixture
def submitter(crds: list[str], plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RayJobs]:
    """A back-end with the rights of `holdfast-submit`."""
    monkeypatch.setenv("KUBECONFIG", str(accounts(plane, namespace, ["tracking"])))

    def make(**settings: Any) -> RayJobs:
        return RayJobs(Settings(**{"image": IMAGE, **settings}))

    return make


def job(place: RayJobs, *command: str) -> jobs.Job:
    return jobs.make(place.settings, command or TRAIN)


def started(place: RayJobs, each: jobs.Job) -> bool:
    """As `submit` starts it: what is on its way is asked for again."""
    return patiently(lambda: place.start(each), 30.0)


@recorded
@pytest.mark.parametrize("scenario", sorted(ENDS))
def test_every_recorded_life_ends_with_its_code_and_words(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str, scenario: str
) -> None:
    place = submitter()
    each = job(place)
    assert place.start(each)
    waiting = Waiting(place, each.name)
    speed = 5.0 if scenario == "no-shutdown" else SPEED  # its client deletes it at the end
    with Replay(Trace(scenario), plane, namespace, each.name, speed) as replay:
        found = waiting.found()
        replay.wait()
    code, words = ENDS[scenario]
    assert found.code == code, waiting.said
    assert words in found.told()


@recorded
@pytest.mark.parametrize("case", INVALID)
def test_a_job_that_the_operator_refuses_is_a_misuse_in_its_words(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str, case: str
) -> None:
    place = submitter()
    each = job(place)
    assert place.start(each)
    waiting = Waiting(place, each.name)
    with Replay(Trace("validation-failed", case), plane, namespace, each.name, SPEED):
        found = waiting.found()
    assert (found.code, found.phase) == (MISUSE, ENDED)
    assert INVALID[case] in found.told()


@recorded
def test_a_job_deleted_in_mid_run_was_stopped(submitter: Callable[..., RayJobs], plane: Plane, namespace: str) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    waiting = Waiting(place, each.name)
    with Replay(Trace("deleted-mid-run"), plane, namespace, each.name, SPEED):
        assert waiting.found().code == STOPPED


@recorded
@pytest.mark.parametrize(
    ("scenario", "words"), [("unschedulable", "has 4 free GPUs"), ("image-pull-fails", "image cannot")]
)
def test_status_says_why_a_job_does_not_start(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str, scenario: str, words: str
) -> None:
    place = submitter(pool="a10g-4")
    each = job(place)
    place.start(each)
    with Replay(Trace(scenario), plane, namespace, each.name, SPEED):
        until(lambda: words in place.state(each.name).message)


@recorded
def test_an_image_that_cannot_be_pulled_ends_the_job(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    waiting = Waiting(place, each.name, hopeless=2.0)
    with Replay(Trace("image-pull-fails"), plane, namespace, each.name, 5.0):
        found = waiting.found()
    assert (found.code, "it was cancelled" in found.message) == (FAILURE, True)
    assert place.api.get("RayJob", each.name) is None, "never a job left running that nobody knows of"


@recorded
def test_an_api_server_that_goes_away_in_mid_wait_is_waited_for(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    waiting = Waiting(place, each.name, patience=60.0)
    plane.stop_api()
    until(lambda: any("does not answer" in said for said in waiting.said))
    plane.start_api()
    with Replay(Trace("success"), plane, namespace, each.name, SPEED):
        assert waiting.found().code == OK


def test_an_api_server_that_stays_away_loses_the_job_but_does_not_end_it(
    submitter: Callable[..., RayJobs], plane: Plane
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    waiting = Waiting(place, each.name, patience=3.0)
    plane.stop_api()
    with pytest.raises(Unreachable, match="does not answer"):
        waiting.found()
    plane.start_api()
    assert place.state(each.name).code is None


@recorded
def test_a_token_that_expires_is_read_anew(submitter: Callable[..., RayJobs], plane: Plane, namespace: str) -> None:
    place = submitter()
    path = plane.kubeconfig_for(namespace, "holdfast-submit", seconds=3)
    place = submitter()
    each = job(place)
    place.start(each)
    waiting = Waiting(place, each.name, patience=60.0)
    until(lambda: any("does not take this token" in said for said in waiting.said))
    plane.kubeconfig_for(namespace, "holdfast-submit", path=path)
    with Replay(Trace("success"), plane, namespace, each.name, SPEED):
        assert waiting.found().code == OK


@recorded
def test_the_log_is_shown_once_though_its_stream_is_read_many_times(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    text = "".join(f"line {i}\n" for i in range(200))
    waiting = Waiting(place, each.name)
    certificates = plane.certificates  # type: ignore[attr-defined]
    with Replay(Trace("success"), plane, namespace, each.name, 4.0, text, certificates):
        assert waiting.found().code == OK
    assert waiting.lines == text.splitlines()


def test_two_submitters_at_once_make_one_job(submitter: Callable[..., RayJobs]) -> None:
    place = submitter()
    each = job(place)
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(started(submitter(), each))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, False, True]
    assert [found.name for found in place.jobs()] == [each.name]
    lease = place.api.get("Lease", each.name)
    assert lease
    assert lease["metadata"]["ownerReferences"][0]["kind"] == "RayJob"


@recorded
def test_an_ended_job_is_told_and_only_run_anew_on_request(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    with Replay(Trace("app-failed"), plane, namespace, each.name, SPEED) as replay:
        replay.wait()
        assert place.state(each.name).code == FAILURE
        assert not submitter().start(each)
        assert submitter().state(each.name).code == FAILURE
        before = place.api.get("RayJob", each.name)
        assert started(submitter(again=True), each)
    after = place.api.get("RayJob", each.name)
    assert before
    assert after
    assert before["metadata"]["uid"] != after["metadata"]["uid"]
    assert submitter().state(each.name).code is None


def test_the_same_command_is_not_run_twice_at_once(submitter: Callable[..., RayJobs]) -> None:
    first = submitter()
    first.start(job(first))
    other = submitter(image="registry.example/holdfast:2")
    with pytest.raises(Misuse, match="already running as train-digits-standard-"):
        other.start(job(other))
    named = submitter(name=job(first).name, storage="s3://else/where")
    with pytest.raises(Misuse, match="is another job's"):
        named.start(job(named))
    first.cancel(job(first).name)
    until(lambda: first.state(job(first).name).code == STOPPED)
    assert other.start(job(other))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"queue": "gpu"}, "queue=gpu is no LocalQueue of namespace .*; there are: none"),
        ({"secrets": ("tracking",)}, "secrets=tracking: no such Secret"),
        ({"namespace": "elsewhere"}, "namespace=elsewhere: the cluster refuses .*ask for the role holdfast-submit"),
        ({"context": "prod"}, "context=prod is not in the kube config; there are tests"),
        ({"team": "two words"}, "the cluster refuses the job .*two words"),
    ],
)
def test_what_the_cluster_cannot_run_is_refused_before_anything_is_created(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str, settings: dict[str, Any], says: str
) -> None:
    def start() -> None:
        place = submitter(**settings)
        place.start(job(place))

    with pytest.raises(Misuse, match=says):
        start()
    for kind, version in (("RayJob", "ray.io/v1"), ("Lease", "coordination.k8s.io/v1")):
        assert plane.call("GET", plane.path(version, kind, namespace))["items"] == []


def test_without_a_kube_config_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(Misuse, match=r"no kube config .*set KUBECONFIG, or run `aws eks update-kubeconfig"):
        RayJobs(Settings())


def test_a_cluster_that_never_answers_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = {"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    config = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "x"}
    (tmp_path / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **config}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(Misuse, match=r"https://127.0.0.1:9 does not answer .*: nothing was submitted"):
        submitting.submit([f"image={IMAGE}", "patience_minutes=0.02"], TRAIN, print, print, True, None)


@pytest.fixture
def bare(plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace of a cluster, with all rights; whether it knows RayJobs depends on what ran before."""
    monkeypatch.setenv(
        "KUBECONFIG", str(plane.write_kubeconfig(plane.kubeconfig.parent / "bare", _token(plane), namespace))
    )
    return namespace


def _token(plane: Plane) -> str:
    user = yaml.safe_load(plane.kubeconfig.read_text())["users"][0]["user"]
    return str(user["token"])


@pytest.mark.parametrize(
    ("served", "says"),
    [(None, "knows no RayJob: KubeRay 1.7.0 is not installed; helm"), ({}, "older than 1.7.0; kubectl")],
)
def test_a_cluster_without_or_with_an_old_kuberay_says_what_to_install(
    bare: str, monkeypatch: pytest.MonkeyPatch, served: dict[str, Any] | None, says: str
) -> None:
    place = RayJobs(Settings(image=IMAGE))
    spec = {"properties": {"spec": {"properties": served}}}
    schema = None if served is None else {"components": {"schemas": {"io.ray.v1.RayJob": spec}}}
    monkeypatch.setattr(place.api, "schema", lambda group: schema)
    monkeypatch.setattr(place, "_get", lambda name: None)
    with pytest.raises(Misuse, match=says):
        place.start(job(place))


def test_a_lease_of_an_earlier_job_is_not_believed(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    """One that nobody owns, and one of a job that was deleted: both say that the command had ended well."""
    place = submitter()
    each = job(place)
    path = plane.path("coordination.k8s.io/v1", "Lease", namespace)
    stale = record.lease(each.name, namespace)
    stale["metadata"]["annotations"] = {record.EXIT: "0"}
    plane.call("POST", path, stale)
    time.sleep(1.1)  # times of creation are by the second
    place.start(each)
    assert record.read(place.api.get("Lease", each.name)) == record.Record(None, None)
    gone = {**stale["metadata"], "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "gone"}]}
    place.cancel(each.name)
    until(lambda: place.api.get("RayJob", each.name) is None)
    assert place.api.get("Lease", each.name) is None, "it goes with its job, at once"
    plane.call("POST", path, {**stale, "metadata": gone})
    started(place, each)
    assert record.read(place.api.get("Lease", each.name)) == record.Record(None, None)


def test_a_lease_that_the_command_made_first_is_adopted(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    leases.drop(place.api, each.name)
    plane.call("POST", plane.path("coordination.k8s.io/v1", "Lease", namespace), record.lease(each.name, namespace))
    assert not place.start(each)
    lease, there = place.api.get("Lease", each.name), place.api.get("RayJob", each.name)
    assert lease
    assert there
    assert lease["metadata"]["ownerReferences"][0]["uid"] == there["metadata"]["uid"]


@recorded
def test_a_lost_job_is_run_again_by_the_same_line(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    with Replay(Trace("head-pod-killed-submitter-backoff-0"), plane, namespace, each.name, SPEED) as replay:
        replay.wait()
        assert place.state(each.name).code == LOST
        assert started(submitter(), each)


def test_a_job_whose_pods_may_not_be_made_says_why(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter()
    each = job(place)
    place.start(each)
    there = plane.path("ray.io/v1", "RayJob", namespace, each.name)
    status = {"status": {"jobDeploymentStatus": "Initializing", "rayClusterName": "ray-x"}}
    plane.call("PATCH", f"{there}/status", status, "application/merge-patch+json")
    about = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": "ray-x", "namespace": namespace}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "type": "Warning", "reason": "FailedToCreateHeadPod"}
    event |= {"message": "exceeded quota: pods", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1}
    plane.call("POST", plane.path("v1", "Event", namespace), event)
    assert place.state(each.name).message == "exceeded quota: pods"


def test_a_long_ended_job_of_the_same_command_is_cleared_away(
    submitter: Callable[..., RayJobs], plane: Plane, namespace: str
) -> None:
    place = submitter(name="first", keep_minutes=1.0)
    place.start(job(place))
    path = plane.path("ray.io/v1", "RayJob", namespace, "first")
    status = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": "2026-01-01T00:00:00Z"}
    plane.call("PATCH", f"{path}/status", {"status": status}, "application/merge-patch+json")
    second = submitter(name="second", keep_minutes=1.0)
    second.start(job(second))
    assert [found.name for found in second.jobs()] == ["second"]
