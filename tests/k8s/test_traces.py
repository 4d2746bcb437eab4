"""Recorded lives: read, and lived again."""

import json
import re

import pytest

from tests.k8s.life import Life, rayjob
from tests.k8s.plane import Plane, until
from tests.k8s.replay import Replay
from tests.k8s.rules import invalid
from tests.k8s.traces import MISSING, RECORDINGS, Names, Trace, course, lives

if not RECORDINGS.is_dir():
    pytest.skip(MISSING, allow_module_level=True)

LIVES = lives()
NAMES = [trace.case for trace in LIVES if trace.scenario == "validation-failed"]
each_life = pytest.mark.parametrize("trace", LIVES, ids=lambda trace: trace.case or trace.scenario)


@each_life
def test_only_names_are_renamed(trace: Trace) -> None:
    ours = Names(trace, "team", "train-1f2e")
    for row in trace.rows:
        there, here = json.dumps(row.object), json.dumps(ours(row.object))
        assert f"trace-{trace.scenario}" not in here
        assert not re.search(rf"(?<![\w-]){trace.rayjob}-[a-z0-9]{{5}}\b", here)
        if row.kind == "RayJob":
            for word in ("jobDeploymentStatus", "jobStatus", "reason"):
                assert re.findall(rf'"{word}": "\w*"', here) == re.findall(rf'"{word}": "\w*"', there)
            message, as_recorded = ours(row.object["status"]).get("message"), row.object["status"].get("message")
            if as_recorded and trace.rayjob not in as_recorded and "StartTime" not in as_recorded:
                assert message == as_recorded


@pytest.mark.parametrize("name", NAMES)
def test_what_the_operator_refuses(name: str) -> None:
    trace = Trace("validation-failed", name)
    (said,) = {each.get("message") for each in trace.statuses if each.get("reason")} or {None}
    found = invalid({"metadata": {"name": name}, "spec": trace.spec})
    if name == "bad-runtime-env":  # its parser's words are another's
        assert said
        assert found
        said, found = (text.partition(": a: [1: ")[0] for text in (said, found))
    assert found == said


@each_life
def test_a_recorded_life_again(plane: Plane, crds: list[str], namespace: str, trace: Trace) -> None:
    """Each status, and in the end the Pods that were left. What they wrote has the same time stamps when read again."""
    life, certificates = Life(plane, namespace, rayjob("train-1f2e")), getattr(plane, "certificates", None)
    with Replay(trace, plane, namespace, life.name, 1000, "one\ntwo\n", certificates) as replay:
        replay.wait()
        statuses = life.statuses
        assert course(statuses) == course(trace.statuses)
        assert len({each.get("jobId") for each in statuses}) == len({each.get("jobId") for each in trace.statuses})
        if any((row.kind, row.type) == ("RayJob", "DELETED") for row in trace.rows):
            assert life.now is None
            return  # the garbage collector is at the rest
        last = {replay.rows.ours(row.name): row.type for row in trace.rows if row.kind == "Pod"}
        left = {pod["metadata"]["name"]: pod for pod in life.objects("pods")}
        assert set(left) == {name for name, kind in last.items() if kind != "DELETED"}
        for name in [name for name, pod in left.items() if "nodeName" in pod["spec"]]:
            once, again = (life.log(name, timestamps="true") for _ in range(2))
            assert once == again
            assert [line.split(" ", 1)[1] for line in once.splitlines()] == ["one", "two"]


def test_a_recorded_life_that_is_cancelled(plane: Plane, crds: list[str], namespace: str) -> None:
    """The recording knows nothing of it: the operator lets the RayJob go, and nothing of it stays."""
    with Replay(Trace("success"), plane, namespace, "train-1f2e", speed=20):
        life = Life(plane, namespace, rayjob("train-1f2e"))
        life.until("Running")
        life.delete()
        until(lambda: life.now is None)
        until(lambda: not life.objects("pods"))


def test_the_api_server_restarts_in_a_recorded_life(plane: Plane, crds: list[str], namespace: str) -> None:
    trace, life = Trace("success"), Life(plane, namespace, rayjob("train-1f2e"))
    with Replay(trace, plane, namespace, life.name, speed=20) as replay:
        life.until("Running")
        plane.stop_api()
        plane.start_api()
        replay.wait()
        assert course([life.status]) == course(trace.statuses)[-1:]
