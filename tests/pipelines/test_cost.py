"""What runs cost: histories logged by hand, whose cost is known, on a real tracking database."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pipelines.cli import MISUSE, OK, main
from pipelines.costs import account, prices
from pipelines.costs.account import FAILED, PREEMPTED, STOP
from pipelines.errors import Misuse
from pipelines.tracking import holding
from pipelines.tracking.holding import Start

HOUR = 3_600_000
DAY = 1_790_000_000_000
"""A time, in milliseconds since 1970."""
PRICES = """
currency: EUR
pools:
  spot: {node_hour: 4, gpus: 4}
  safe: {node_hour: 20, gpus: 4}
  cpu: {node_hour: 0.8, cpus: 8}
"""


class Book:
    """A tracking database, in which runs are written as trainings leave them."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.uri, self.client = uri, MlflowClient(uri, registry_uri=uri)
        self.experiment = self.client.create_experiment("costs", artifact_location=f"{uri[10:]}.artifacts")

    def run(self, name: str, *starts: Start, began: int = DAY, **tags: str) -> str:
        held = {f"{holding.HELD}{start.began}": json.dumps(asdict(start)) for start in starts}
        named = {key.replace("__", "."): value for key, value in tags.items()}
        made = self.client.create_run(self.experiment, began, {**named, **held}, name)
        self.client.set_terminated(made.info.run_id, "FINISHED", began + HOUR)
        return str(made.info.run_id)

    def log(self, run_id: str, key: str, *points: tuple[int, float]) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(run_id, [Metric(key, step, when, when) for when, step in points])

    def cost(self, *arguments: str, code: int = OK) -> dict[str, Any]:
        out = Path(self.uri.removeprefix("sqlite:///")).with_name("cost.json")
        lines = [f"tracking.uri={self.uri}", "tracking.experiment=costs", f"--json={out}"]
        assert main(["cost", *arguments, *lines]) == code
        return dict(json.loads(out.read_text())) if out.exists() else {}


@pytest.fixture
def book(tracking_uri: str) -> Book:
    return Book(tracking_uri)


@pytest.fixture
def paid(tmp_path: Path) -> str:
    (tmp_path / "prices.yaml").write_text(PRICES)
    return f"prices={tmp_path / 'prices.yaml'}"


def start(what: str = "train", at: float = 0, hours: float | None = None, how: str = "finished", **more: Any) -> Start:
    """``at``, ``hours``: from ``DAY`` on, and how long; no hours for one that was killed."""
    began = DAY + round(HOUR * at)
    ended = None if hours is None else began + round(HOUR * hours)
    facts = {"workers": 2, "gpus": 2.0, "cpus": 8.0, "pool": "spot", **more}
    return Start(what=what, began=began, ended=ended, how=how if ended else None, **facts)


def at(*points: tuple[float, float]) -> list[tuple[int, float]]:
    return [(DAY + round(HOUR * hours), step) for hours, step in points]


def wasted(held: Sequence[account.Held]) -> list[Mapping[str, float]]:
    """In hours."""
    return [{cause: round(seconds / 3600, 6) for cause, seconds in each.wasted.items()} for each in held]


def hours(held: Sequence[account.Held]) -> list[float | None]:
    return [None if each.seconds is None else round(each.seconds / 3600, 6) for each in held]


def test_a_training_that_was_never_interrupted_wastes_nothing():
    held = account.trained([start(hours=2)], at((0.1, 0)), at((1, 50), (1.9, 100)), [])
    assert (hours(held), wasted(held), held[0].again) == ([2.0], [{}], 0)


def test_a_killed_start_is_held_to_its_last_sign_and_the_way_back_is_wasted():
    """Killed after step 100, reported at hour 1; the next continues from step 60, and is at 100 half-way to 140."""
    begun, reached = at((0.1, 0), (5.1, 60)), at((0.5, 50), (1, 100), (5.5, 140), (6, 200))
    held = account.trained([start(), start(at=5, hours=1.5)], begun, reached, [])
    assert hours(held) == [1.0, 1.5]
    assert wasted(held) == [{}, {FAILED: 0.3}]
    assert [each.again for each in held] == [0, 40]


@pytest.mark.parametrize(("notice", "cause"), [(at((0.9, 90)), PREEMPTED), (at((5.2, 60)), FAILED), ([], FAILED)])
def test_a_pre_emption_is_one_that_was_announced_to_the_attempt_before(notice, cause):
    reached = at((1, 100), (5.5, 100), (6, 200))
    (_, second) = account.trained([start(), start(at=5, hours=1.5)], at((0, 0), (5, 60)), reached, notice)
    assert list(second.wasted) == [cause]


def test_workers_that_ray_starts_anew_are_waited_for_at_the_cost_of_all():
    """Lost at hour 1, back at hour 3, at step 100 again at hour 4."""
    begun, reached = at((0, 0), (3, 0)), at((1, 100), (4, 100), (5, 200))
    (held,) = account.trained([start(hours=6)], begun, reached, at((0.9, 90)))
    assert (hours([held]), wasted([held]), held.again) == ([6.0], [{PREEMPTED: 3.0}], 100)


def test_a_start_that_never_came_back_to_where_it_was_is_wasted_whole():
    begun, reached = at((0, 0), (2, 50), (6, 50)), at((1, 100), (3, 80), (7, 100), (8, 150))
    held = account.trained([start(), start(at=2), start(at=6, hours=3)], begun, reached, at((3, 80)))
    assert hours(held) == [1.0, 1.0, 3.0]
    assert wasted(held) == [{}, {FAILED: 1.0}, {PREEMPTED: 1.0}]
    assert [each.again for each in held] == [0, 30, 50]


def test_a_stop_is_told_apart_and_so_is_what_begins_again_after_its_end():
    begun, reached = at((0, 0), (2, 100), (5, 200)), at((1, 100), (3, 200))
    starts = [start(hours=1, how="stopped"), start(at=2, hours=2), start(at=5, hours=0.5)]
    assert wasted(account.trained(starts, begun, reached, [])) == [{}, {STOP: 0.0}, {}]


def test_a_start_without_workers_is_wasted_if_it_follows_another_and_unknown_if_it_was_killed():
    starts = [start(hours=1, how="failed"), start(at=2, hours=0.5, how="failed"), start(at=3)]
    held = account.trained(starts, at((0.5, 0)), at((1, 10)), [])
    assert hours(held) == [1.0, 0.5, None]
    assert wasted(held) == [{}, {FAILED: 0.5}, {}]


def test_a_run_of_two_attempts_on_two_pools(book, paid, capsys):
    safe = start(at=5, hours=1.5, pool="safe")
    run_id = book.run("two", start(), safe)
    book.log(run_id, holding.FROM, *at((0.1, 0), (5.1, 60)))
    book.log(run_id, holding.REACHED, *at((0.5, 50), (1, 100), (5.5, 140), (6, 200)))
    book.log(run_id, holding.NOTICE, *at((0.9, 90)))
    found = book.cost("run=two", paid)
    # 2 GPUs for 1 h at 4 a node of 4, and for 1.5 h at 20 a node of 4; 0.3 h of the second were wasted.
    assert found["total"]["gpu_hours"] == pytest.approx(5.0)
    assert found["total"]["cpu_hours"] == 0
    assert found["total"]["money"] == pytest.approx(2 + 15)
    assert found["total"]["steps_again"] == 40
    (cause,) = found["total"]["wasted"].items()
    assert cause == (PREEMPTED, {"gpu_hours": pytest.approx(0.6), "cpu_hours": 0, "money": pytest.approx(3)})
    said = capsys.readouterr().out
    assert "in all: 5.000 GPU h, 17.00 EUR; wasted 0.600 GPU h, 3.00 EUR (pre-empted 0.600 GPU h; 40 steps" in said
    assert [each["pool"] for each in found["runs"][0]["starts"]] == ["spot", "safe"]
    assert book.cost(f"run={run_id[:8]}")["runs"][0]["money"] is None


def test_the_newest_runs_with_what_is_not_known_counted_apart(book, paid, capsys):
    book.run("old", began=DAY - HOUR)
    book.run("gpus", start(hours=1), began=DAY)
    book.run("cpus", start(hours=1, gpus=0.0, pool="cpu"), began=DAY + 1)
    book.run("laptop", start(hours=1, gpus=0.0, pool=None), began=DAY + 2)
    book.run("elsewhere", start(hours=1, pool="moon"), began=DAY + 3)
    book.run("killed", start("evaluate"), start("evaluate", at=1, hours=1), began=DAY + 4)
    book.run("a-retraining", began=DAY + 5, retraining="digits")
    found = book.cost(paid)
    assert [run["name"] for run in found["runs"]] == ["killed", "elsewhere", "laptop", "cpus", "gpus", "old"]
    assert [run["money"] for run in found["runs"]] == [2.0, None, None, 0.8, 2.0, None]
    total = found["total"]
    assert (total["gpu_hours"], total["cpu_hours"], total["money"]) == (6.0, 16.0, pytest.approx(4.8))
    assert sum(total["missing"].values()) == 2
    assert sum(total["unpriced"].values()) == 2
    said = capsys.readouterr().out
    rows = {line.split()[1]: line for line in said.splitlines() if len(line.split()) > 5}
    assert rows["old"].split()[-4:] == ["-", "-", "-", "-"]
    assert rows["killed"].split()[-8:] == ["≥", "2.000", "GPU", "h", "0", "≥", "2.00", "0.00"]
    for line in (
        "not counted: runs without a record of what they held: 1",
        "not counted: starts without a known end, killed or still at work: 1",
        f"without a price: starts on pool moon, which {paid} does not name (add pools.moon): 1",
        "without a price: starts on no pool (set HOLDFAST_POOL where they run, as holdfast submit does): 1",
        "in all: ≥ 6.000 GPU h + 16.000 CPU h, ≥ 4.80 EUR; wasted 0, 0.00 EUR",
    ):
        assert line in said


def test_which_runs_are_listed(book):
    for day in range(3):
        book.run(f"run-{day}", start(hours=1), began=DAY + 24 * day * HOUR)
    assert [run["name"] for run in book.cost("last=2")["runs"]] == ["run-2", "run-1"]
    day = "2026-09-22"
    assert book.cost(f"since={day}", "last=1")["runs"][-1]["began"][:10] == day
    assert len(book.cost(f"since={day}", "last=1")["runs"]) == 2
    assert book.cost("since=2030-01-01")["total"]["gpu_hours"] == 0


def test_a_search_its_trials_and_its_finalists(book, paid, capsys):
    parent = book.run("sweep", search="sweep")
    child = {"search": "sweep", "mlflow__parentRunId": parent}
    book.run("t_1", start(hours=1), **child)
    early = book.run("t_2", start(), **child)
    book.log(early, holding.FROM, *at((0.1, 0)))
    book.log(early, holding.REACHED, *at((0.5, 50)))
    book.run("t_1-seed1", start(hours=2), start("evaluate", at=3, hours=1), start("promote", at=5, hours=8), **child)
    book.run("other", start(hours=99), search="another", mlflow__parentRunId="x")
    found = book.cost("search=sweep", paid)
    assert {run["name"]: run["gpu_hours"] for run in found["trials"]} == {"t_1": 2.0, "t_2": 1.0}
    assert [run["gpu_hours"] for run in found["finalists"]] == [6.0]
    assert (found["total"]["gpu_hours"], found["total"]["money"]) == (9.0, 9.0)
    assert "in all: 9.000 GPU h, 9.00 EUR" in capsys.readouterr().out


def test_a_registered_model_version_by_version(book, paid, capsys, name):
    run_id = book.run("first", start(hours=4), start("evaluate", at=5, hours=1), start("promote", at=7, hours=2))
    book.client.create_registered_model(name)
    for run, tags in ((run_id, {}), (book.run("second"), {"search": "sweep"})):
        book.client.create_model_version(name, f"{book.uri[10:]}.artifacts", run, tags=tags)
    found = book.cost(f"name={name}", paid)
    first, second = found["versions"]
    parts = ("training", "evaluation", "promotion")
    assert [first[part]["gpu_hours"] for part in parts] == [8.0, 2.0, 4.0]
    assert [first[part]["money"] for part in parts] == [8.0, 2.0, 4.0]
    assert sum(second["training"]["missing"].values()) == 1
    assert found["total"]["gpu_hours"] == 14.0
    assert "holdfast cost search=sweep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("run=nobody", "run=nobody is no run of tracking.experiment=costs"),
        ("run=twice", "run=twice: 2 runs of .* are called so; give one of"),
        (f"run={'0' * 32}", "is no run of"),
        ("search=nothing", "search=nothing is no search of .*; there are sweep"),
        ("name=nobody", "name=nobody is no registered model .*; registered are none"),
        ("tracking.experiment=elsewhere", "tracking.experiment=elsewhere is not at .*; there are Default, costs"),
        ("tracking.uri=http://127.0.0.1:9", "tracking.uri=http://127.0.0.1:9 does not answer"),
    ],
)
def test_what_is_not_there_is_named(book, capsys, asked, said):
    book.run("sweep", search="sweep")
    for _ in range(2):
        book.run("twice")
    key = asked.partition("=")[0]
    lines = [f"tracking.uri={book.uri}", "tracking.experiment=costs"]
    assert main(["cost", *(line for line in lines if not line.startswith(key)), asked]) == MISUSE
    assert re.search(said, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "it must have the keys currency, pools"),
        ("currency: USD", r"pools must name at least one pool"),
        ("pools: {a: {node_hour: 1, gpus: 1}}", "currency=None must be a word"),
        ("currency: USD\ncosts: {}", "costs is unknown"),
        ("currency: USD\npools: {a: 3}", "pools.a must have the keys node_hour, gpus, cpus"),
        ("currency: USD\npools: {a: {node_hour: 1, gpu: 1}}", "pools.a.gpu is unknown; nearest: gpus"),
        ("currency: USD\npools: {a: {node_hour: 1}}", "pools.a must have node_hour, and gpus or cpus"),
        ("currency: USD\npools: {a: {node_hour: -1, gpus: 1}}", "pools.a.node_hour=-1 must be a number and not be neg"),
        ("currency: USD\npools: {a: {node_hour: much, gpus: 1}}", "pools.a.node_hour=much must be a number"),
        ("currency: USD\npools: {a: {node_hour: .nan, gpus: 1}}", "pools.a.node_hour=nan must be a number"),
        ("currency: USD\npools: {a: {node_hour: 1, gpus: 0}}", "pools.a.gpus=0 must be a number and be above 0"),
        ("currency: {", "is not YAML"),
    ],
)
def test_a_price_file_that_cannot_be(tmp_path, content, said):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(Misuse, match=f"prices={file}.*{said}"):
        prices.of_file(str(file))


def test_the_example_prices_every_pool_that_workers_may_take():
    from pipelines.compose import CONFIGS

    example = prices.of_file(str(CONFIGS / "prices" / "example.yaml"))
    pools = Path(__file__).parents[2] / "k8s" / "pool"
    assert set(example.pools) == {path.stem for path in pools.glob("*.yaml")} - {"head"}


def test_what_is_held_is_written_down_with_its_end(book, monkeypatch):
    monkeypatch.setenv("HOLDFAST_POOL", "spot")
    run_id = book.run("real")

    def work(error: type[BaseException] | None) -> None:
        with holding.held(book.uri, run_id, "train", 2, {"CPU": 3.0, "GPU": 1}):
            if error:
                raise error("as it was")

    work(None)
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            work(error)
    tags = book.client.get_run(run_id).data.tags
    found = holding.starts(tags)
    assert [each.how for each in found] == ["finished", "stopped", "failed"]
    assert all(each.ended >= each.began for each in found)
    assert {(each.gpus, each.cpus, each.pool, each.job) for each in found} == {(2.0, 6.0, "spot", None)}
    assert (tags["pool"], tags["gpus"], tags["cpus"], "job" in tags) == ("spot", "2", "6", False)


def test_a_tag_changed_by_hand_is_no_start():
    good = json.dumps(asdict(start(hours=1)))
    tags = {"held.1": good, "held.2": "x", "held.3": '{"what": "train"}', "held.4": "[]", "other": good}
    assert len(holding.starts(tags)) == 1


def test_a_worker_writes_a_notice_of_pre_emption_down_when_it_saves(monkeypatch):
    """The very sequence of its loop: asked at each report by all workers, as it is a barrier."""
    import ray.train

    from pipelines.worker import Run
    from trainers import state
    from trainers.loop import Report

    marks: list[tuple[str, float]] = []
    journal = mock.Mock(pending=list)
    journal.log = lambda when, metrics: marks.extend(metrics.items())
    made = object.__new__(Run)
    made.probed, made.config, made.state, made.journal = {}, {"checkpoint": {"minutes": 10}}, None, journal
    made.saved_at, made.warned, made.seconds = time.monotonic(), False, 0.0
    notices = iter([None, "notice"])
    monkeypatch.setattr(ray.train, "get_preemption_info", lambda: next(notices))
    monkeypatch.setattr(ray.train, "report", lambda *_, **__: None)
    monkeypatch.setattr(state, "save", lambda *_: None)
    for step in (1, 2):
        if made._save_now():
            made._save(Report(step=step, epoch=0.5, kind="report", metrics={}, seconds=0.0, images=8))
    assert marks == [(holding.NOTICE, 2)]
