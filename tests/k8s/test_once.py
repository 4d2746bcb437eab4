"""A job's command runs once, and nobody else runs it at the same time: real leases of a real API server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k8s import once, record
from k8s.client import Api
from tests.k8s.cluster import accounts
from tests.k8s.plane import Plane, until

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def api(plane: Plane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Api:
    """With the rights of a head's account."""
    accounts(plane, namespace)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_for(namespace, "holdfast-job")))
    monkeypatch.setenv("HOLDFAST_NAMESPACE", namespace)
    return Api(namespace=namespace)


def begin(shell: str, host: str = "head-1", seconds: float = 30.0) -> "subprocess.Popen[str]":
    """A head that runs the job ``job`` with that command."""
    code = f"import sys; from k8s import once, record; record.SECONDS = {seconds}; sys.exit(once.main(sys.argv[1:]))"
    words = ["job", "--", "sh", "-c", shell]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], env={**os.environ, "HOSTNAME": host}, stdout=subprocess.PIPE, text=True
    )


def test_it_gives_the_commands_code_and_leaves_it(api: Api, tmp_path: Path) -> None:
    assert begin("exit 42").wait() == 42
    assert record.read(api.get("Lease", "job")) == record.Record(42, None)


@pytest.mark.parametrize("code", [0, 3])
def test_what_ended_well_or_was_refused_is_not_run_again(api: Api, tmp_path: Path, code: int) -> None:
    shell = f"echo x >> {tmp_path}/runs; exit {code}"
    assert begin(shell).wait() == code
    second = begin(shell, "head-2")
    out, _ = second.communicate()
    assert second.returncode == code
    assert f"had ended with exit code {code}: nothing to run" in out
    assert (tmp_path / "runs").read_text() == "x\n"


def test_the_end_of_an_earlier_try_is_not_that_of_this(api: Api, tmp_path: Path) -> None:
    assert begin("exit 1").wait() == 1
    second = begin(f"touch {tmp_path}/begun; exec sleep 600", "head-2")
    until(lambda: (tmp_path / "begun").exists())
    assert record.read(api.get("Lease", "job")) == record.Record(None, f"head-2-{second.pid}")
    second.kill()


def test_without_rights_it_is_a_misuse_and_not_tried_again(
    plane: Plane, namespace: str, monkeypatch, tmp_path: Path
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody", "namespace": namespace}}
    plane.apply([account], namespace)
    monkeypatch.setenv("KUBECONFIG", str(plane.kubeconfig_for(namespace, "nobody")))
    monkeypatch.setenv("HOLDFAST_NAMESPACE", namespace)
    assert begin(f"touch {tmp_path}/begun").wait() == 2
    assert not (tmp_path / "begun").exists()


def test_a_command_that_does_not_end_is_killed(api: Api, tmp_path: Path) -> None:
    first = begin(f"trap '' TERM; touch {tmp_path}/begun; while :; do sleep 0.1; done", seconds=6)
    until(lambda: (tmp_path / "begun").exists())
    lease = api.get("Lease", "job")
    assert lease
    api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": "head-2"}})
    assert first.wait(timeout=30) == 128 + signal.SIGKILL


def test_what_failed_is_run_again(api: Api, tmp_path: Path) -> None:
    shell = f"echo x >> {tmp_path}/runs; exit 1"
    assert begin(shell).wait() == begin(shell, "head-2").wait() == 1
    assert (tmp_path / "runs").read_text() == "x\nx\n"


def test_a_second_head_waits_for_the_first(api: Api, tmp_path: Path) -> None:
    shell = f"echo x >> {tmp_path}/runs; until test -e {tmp_path}/go; do sleep 0.1; done"
    first = begin(shell)
    until(lambda: (tmp_path / "runs").exists())
    second = begin(shell, "head-2")
    assert second.stdout
    assert "job is held by head-1" in second.stdout.readline()
    (tmp_path / "go").touch()
    assert first.wait() == second.wait() == 0
    assert (tmp_path / "runs").read_text() == "x\n", "the first ended well: nothing was left to run"


def test_a_dead_head_is_taken_over_from(api: Api, tmp_path: Path) -> None:
    shell = f"echo x >> {tmp_path}/runs; until test -e {tmp_path}/go; do sleep 0.1; done"
    first = begin(shell, seconds=3)
    until(lambda: (tmp_path / "runs").exists())
    first.kill()
    second = begin(shell, "head-2", seconds=3)
    until(lambda: (tmp_path / "runs").read_text() == "x\nx\n")
    (tmp_path / "go").touch()
    assert second.wait() == 0


def test_who_loses_the_lease_ends_the_command(api: Api, tmp_path: Path) -> None:
    """A head that was away so long that another took over must not go on beside it."""
    first = begin(f"touch {tmp_path}/begun; exec sleep 600", seconds=3)
    until(lambda: (tmp_path / "begun").exists())
    lease = api.get("Lease", "job")
    assert lease
    api.replace({**lease, "spec": {**lease["spec"], "holderIdentity": "head-2"}})
    assert first.wait(timeout=30) == 128 + signal.SIGTERM
    assert record.read(api.get("Lease", "job")) == record.Record(None, "head-2"), "the other's lease is not touched"


def test_a_stop_reaches_the_command(api: Api, tmp_path: Path) -> None:
    first = begin(f"trap 'exit 5' TERM; touch {tmp_path}/begun; while :; do sleep 0.1; done")
    until(lambda: (tmp_path / "begun").exists())
    first.terminate()
    assert first.wait(timeout=30) == 5
    found = record.read(api.get("Lease", "job"))
    assert found
    assert found.exit_code == 5


def test_an_api_server_away_for_less_than_the_lease_ends_nothing(api: Api, plane: Plane, tmp_path: Path) -> None:
    first = begin(f"touch {tmp_path}/begun; until test -e {tmp_path}/go; do sleep 0.1; done", seconds=30)
    until(lambda: (tmp_path / "begun").exists())
    plane.stop_api()
    (tmp_path / "go").touch()
    time.sleep(1)
    assert first.poll() is None, "its end is still to be written down"
    plane.start_api()
    assert first.wait(timeout=60) == 0
    assert record.read(api.get("Lease", "job")) == record.Record(0, None)


def test_it_is_told_how_to_be_called() -> None:
    assert once.main(["job", "sh"]) == 2
