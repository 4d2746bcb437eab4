"""What is not done again: a version that people took back, a gate that has nothing new to say."""

import io
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import retrain
from pipelines.retraining import steps, told
from pipelines.retraining.due import Made
from pipelines.retraining.job import Job, Seen
from pipelines.retraining.manifest import Manifest
from pipelines.tracking import audit, versions
from pipelines.tracking.lease import Lease
from tests.pipelines.promotion import movers


@pytest.fixture
def job(tracking_uri: str, tmp_path: Path) -> Job:
    """Of a model with four versions, the first of them champion."""
    name = f"model-{uuid.uuid4().hex[:8]}"
    movers.model(tracking_uri, name)
    lines = ["recipe=digits_pgd", f"register_as={name}", f"tracking.uri={tracking_uri}", f"storage={tmp_path / 'runs'}"]
    return retrain.understood(lines, Console(file=io.StringIO()), None)


def rolled_back(job: Job, number: int) -> None:
    versions.tag(job.uri, job.name, number, {versions.ROLLED_BACK: "sevens"})


def test_the_gate_is_not_asked_about_a_version_that_was_rolled_back(job):
    """Its process died after the champion was moved, and before that was written down."""
    rolled_back(job, 2)
    with Lease(job.uri, job.target) as held:
        assert steps._gate(job, held, 2, {}) == ""
    facts = audit.records(job.uri, job.target, ".retrainings")[-1].facts
    assert facts["outcome"] == told.REFUSED
    assert facts["said"] == f"{job.name}/2 was rolled back (sevens), and does not come back by itself"
    assert versions.aliases(job.uri, job.name) == {"champion": 1}


@pytest.mark.parametrize(
    ("version", "outcome", "before", "settled"),
    [
        (1, told.PROMOTED, None, "{}/1 is the champion"),
        (2, told.PROMOTED, 1, ""),  # somebody else is: the data came back, and so may the version
        (2, told.REFUSED, 1, "the gate said no"),
        (2, told.REFUSED, 3, ""),  # it said so beside another champion
        (4, told.PROMOTED, 1, "{}/4 was rolled back (sevens)"),
        (4, told.REFUSED, 3, "{}/4 was rolled back (sevens)"),
    ],
)
def test_the_gate_is_asked_again_where_it_may_say_something_else(job, version, outcome, before, settled):
    rolled_back(job, 4)
    facts = {"version": version, "outcome": outcome, "before": before, "said": "the gate said no"}
    done = audit.append(job.uri, job.target, "holdfast:/retraining", "retrain", "done", facts, kind=".retrainings")
    champion = versions.find(job.uri, job.name, 1)
    made = Made(None, None, None)
    seen = Seen(Manifest("embedded", {}, {}), champion, made, made, [], asked=True)
    assert retrain._settled(job, seen, done) == settled.format(job.name)
