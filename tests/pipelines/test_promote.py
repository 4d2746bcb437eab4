"""`holdfast promote`, `rollback` and `models` as a person meets them: real registry, real attacks."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.cli import FAILURE, MISUSE, OK, REFUSED, main
from pipelines.errors import Failure
from pipelines.tracking import audit, registry, server, versions
from tests.pipelines.promotion import registered
from tests.pipelines.promotion.registered import BETTER, MASKED, SOUND

POLICY = """
evaluation: [data=digits, threats.Linf=0.04, examples=12]
clean: {floor: 0.5, class_floor: 0.0, rule: any, margin: 0.1}
robust: {floor: 0.2, class_floor: 0.0, rule: not_worse, margin: 0.6}
level: 0.05
doubts: []
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory, tracking_template) -> Path:
    folder = tmp_path_factory.mktemp("world") / "made"
    registered.world(folder, tracking_template)
    return folder


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the registry; what was attacked for another test is not attacked again."""
    shutil.copyfile(world / "mlflow.db", tmp_path / "mlflow.db")
    (tmp_path / "own" / "policy").mkdir(parents=True)
    (tmp_path / "own" / "policy" / "small.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def uri(here: Path) -> str:
    return f"sqlite:///{here / 'mlflow.db'}"


@pytest.fixture
def promote(here: Path, uri: str, world: Path):
    def run(*overrides: str, code: int = OK, policy: str = "small") -> dict[str, Any]:
        out = here / "gate.json"
        out.unlink(missing_ok=True)
        own = [f"tracking.uri={uri}", f"storage={world / 'runs'}", f"--json={out}", f"--recipes={here / 'own'}"]
        assert main(["promote", "name=digits", f"policy={policy}", *own, *overrides]) == code
        return json.loads(out.read_text()) if out.exists() else {}

    return run


def failed(found: dict[str, Any]) -> list[str]:
    return [clause["name"] for clause in found["clauses"] if not clause["passed"]]


def test_the_first_champion_then_one_against_it_then_back(promote, uri, here, capsys):
    found = promote(f"version={SOUND}", f"markdown={here / 'gate.md'}")
    said = capsys.readouterr().out
    assert f"models:/digits@champion is version {SOUND} now" in said
    assert found["passed"]
    assert found["champion"] is None
    assert (here / "gate.md").read_text().startswith(f"### Passed: digits/{SOUND}")
    assert promote(f"version={SOUND}")["passed"] is None
    assert "is the champion of digits already" in capsys.readouterr().out

    versions.point(uri, "digits", "challenger", BETTER)
    found = promote()
    assert f"is version {BETTER} now, in place of version {SOUND}" in capsys.readouterr().out
    compared = next(c for c in found["clauses"] if c["name"].endswith("against the champion"))
    assert "points [" in compared["found"]
    assert versions.aliases(uri, "digits") == {"champion": BETTER, "previous": SOUND}
    tags = versions.find(uri, "digits", BETTER).tags
    assert tags["gate.digits.passed"] == "true"
    assert tags["gate.digits.evidence"] == found["evidence"]
    assert tags["gate.digits.artefact"] == tags[registry.ARTEFACT]
    record = audit.records(uri, "digits")[-1]
    assert (record.number, record.state, record.facts["evidence"]) == (found["record"], "done", found["evidence"])
    assert record.text.startswith(f"### Passed: digits/{BETTER}")
    assert promote(f"markdown={here / 'gate.md'}")["why"].startswith("digits has no challenger")
    assert (here / "gate.md").read_text().startswith("digits has no challenger")
    assert "digits has no challenger" in capsys.readouterr().out

    back = ("rollback", "name=digits", f"tracking.uri={uri}")
    assert main([*back, "reason=it mistakes eights"]) == OK
    assert versions.aliases(uri, "digits") == {"champion": SOUND}  # none was champion before it
    assert versions.find(uri, "digits", BETTER).tags["rolled_back"] == "it mistakes eights"
    assert audit.records(uri, "digits")[-1].facts["reason"] == "it mistakes eights"
    assert main([*back, "reason=again"]) == MISUSE
    assert "has no alias previous: say which version" in capsys.readouterr().err
    assert main([*back, "reason=again", f"version={MASKED}"]) == MISUSE
    assert f"version={MASKED} of digits was never champion (those that were: {BETTER})" in capsys.readouterr().err
    assert main([*back, "reason=again", f"version={BETTER}"]) == OK
    assert versions.aliases(uri, "digits")["champion"] == BETTER

    out = here / "models.json"
    capsys.readouterr()
    assert main(["models", f"tracking.uri={uri}", f"--json={out}"]) == OK
    (rows,) = json.loads(out.read_text())["models"].values()
    assert [row["version"] for row in rows] == [MASKED, BETTER, SOUND]
    assert rows[1]["aliases"] == ["champion"]
    assert rows[1]["evaluations"][0]["n"] == 12
    assert rows[1]["gates"]["digits"]["passed"] == "true"
    assert rows[1]["rolled_back"] is None  # it is champion again
    assert ".promotions" not in capsys.readouterr().out


def test_a_masked_one_and_a_worse_one_are_refused_and_nothing_moves(promote, uri, here, capsys):
    found = promote(f"version={MASKED}", f"markdown={here / 'gate.md'}", code=REFUSED)
    assert "doubts" in failed(found)
    assert versions.aliases(uri, "digits") == {}
    assert f"digits/{MASKED} is not promoted: " in capsys.readouterr().err
    assert "| ❌ | doubts |" in (here / "gate.md").read_text()
    assert versions.find(uri, "digits", MASKED).tags["gate.digits.passed"] == "false"
    (record,) = audit.records(uri, "digits")
    assert (record.state, record.facts["failed"]) == ("refused", failed(found))
    promote(f"version={MASKED}", code=REFUSED)
    assert len(audit.records(uri, "digits")) == 1  # said once

    versions.point(uri, "digits", "champion", BETTER)
    found = promote(f"version={SOUND}", "policy.robust.rule=better", code=REFUSED)
    assert failed(found) == ["robust accuracy, Linf 0.04, against the champion"]
    assert versions.aliases(uri, "digits") == {"champion": BETTER}


def test_a_changed_artefact_is_refused_before_anything_attacks_it(promote, uri, capsys, world, here):
    number = registered.put(uri, here, registered.network(5, 1.0), "to be changed")
    weights = max((world / "artifacts").rglob("weights.safetensors"), key=lambda path: path.stat().st_mtime_ns)
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = promote(f"version={number}", code=REFUSED)
    assert "artefact" in failed(found)
    assert "left" not in capsys.readouterr().out
    (record,) = audit.records(uri, "digits")
    assert record.facts["failed"] == failed(found)

    server.client(uri).delete_model_version_tag("digits", str(number), registry.ARTEFACT)
    assert "artefact" in failed(promote(f"version={number}", code=REFUSED))
    versions.point(uri, "digits", "champion", number)
    capsys.readouterr()
    assert failed(promote(f"version={SOUND}", code=REFUSED)) == ["champion's artefact"]
    assert "left" not in capsys.readouterr().out
    shutil.rmtree(weights.parents[1])
    assert "artefact" in failed(promote(f"version={number}", "to=production", code=REFUSED))
    assert versions.aliases(uri, "digits") == {"champion": number}


def test_across_registered_models_tags_and_digests_go_along(promote, uri, capsys):
    versions.point(uri, "digits", "challenger", BETTER)
    promote("to=production")
    assert "models:/production@champion is version 1 now" in capsys.readouterr().out
    tags, copied = (versions.find(uri, name, number).tags for name, number in (("digits", BETTER), ("production", 1)))
    assert copied.items() >= tags.items()
    assert copied["holdfast.copied_from"] == f"models:/digits/{BETTER}"
    assert versions.aliases(uri, "digits") == {}  # a challenger no more
    assert [record.state for record in audit.records(uri, "production")] == ["done"]
    promote("to=production", f"version={BETTER}")
    assert "is the champion of production already" in capsys.readouterr().out
    promote("to=production", f"version={SOUND}")
    assert versions.aliases(uri, "production") == {"champion": 2, "previous": 1}
    promote("to=production", f"version={MASKED}", code=REFUSED)
    assert len(versions.listed(uri, "production")) == 2


def test_a_champion_moved_by_hand_is_reported(promote, uri, capsys):
    promote(f"version={SOUND}")
    versions.point(uri, "digits", "champion", MASKED)
    capsys.readouterr()
    assert main(["models", f"tracking.uri={uri}"]) == OK
    assert f"the champion of digits is version {MASKED}, and the last record (1) made it version {SOUND}" in (
        capsys.readouterr().out
    )


def test_a_watch_gates_a_challenger_once_and_outlives_what_is_wrong(promote, uri, capsys, monkeypatch):
    looks = iter(range(5))

    def sleep(seconds: float) -> None:
        look = next(looks)
        if look == 0:
            versions.point(uri, "digits", "challenger", MASKED)
        elif look == 3:
            versions.point(uri, "digits", "challenger", BETTER)
        elif look == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipelines.promote.time", SimpleNamespace(sleep=sleep))
    promote("watch=0.01", code=5)
    said = capsys.readouterr().out
    assert said.count(f"digits/{MASKED} is not promoted") == 1
    assert versions.aliases(uri, "digits") == {"champion": BETTER}


def test_whoever_moves_the_champion_meanwhile_wins(promote, uri, monkeypatch, capsys):
    from pipelines.promotion import move

    promote(f"version={SOUND}")
    moved = move.move

    def late(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(move, "move", moved)
        versions.point(uri, "digits", "champion", MASKED)
        return moved(*args, **kwargs)

    monkeypatch.setattr(move, "move", late)
    promote(f"version={BETTER}", code=REFUSED)
    assert f"was version {SOUND} when this was decided and is version {MASKED} now, moved by hand" in (
        capsys.readouterr().err
    )
    assert versions.aliases(uri, "digits")["champion"] == MASKED


def test_an_artefact_changed_while_it_is_judged_is_not_promoted(promote, uri, monkeypatch, capsys):
    from pipelines.promotion import artefact

    monkeypatch.setattr(artefact, "unchanged", lambda *_: False)
    promote(f"version={SOUND}", code=REFUSED)
    assert "is not promoted: artefact, after the attacks" in capsys.readouterr().err
    assert audit.records(uri, "digits")[-1].state == "refused"
    assert versions.aliases(uri, "digits") == {}


def test_a_registry_that_refuses_in_the_middle_loses_nothing(promote, uri, monkeypatch, capsys):
    client = server.client(uri)
    point = type(client).set_registered_model_alias

    def refuses(self: Any, name: str, alias: str, version: str) -> Any:
        if alias == "champion":
            raise ConnectionError("401 the token has expired")
        return point(self, name, alias, version)

    promote(f"version={SOUND}")
    with monkeypatch.context() as patch:
        patch.setattr(type(client), "set_registered_model_alias", refuses)
        promote(f"version={BETTER}", code=FAILURE)
    assert (
        "did not move alias champion of digits (401 the token has expired); see to the server and the credentials"
        in (capsys.readouterr().err)
    )
    assert versions.aliases(uri, "digits")["champion"] == SOUND
    assert [record.state for record in audit.records(uri, "digits")] == ["done", "moving"]
    promote(f"version={BETTER}")
    assert versions.aliases(uri, "digits") == {"champion": BETTER, "previous": SOUND}
    assert [record.state for record in audit.records(uri, "digits")] == ["done", "undone", "tidied", "done"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("version=9",), "version=9: digits has no such version; it has 1, 2, 3"),
        (("watch=0",), "watch=0 must be above 0"),
        (("markdown=absent/gate.md",), "markdown=absent/gate.md: its folder is not there"),
        (("policy.level=0.7",), "policy.level=0.7 must be in (0, 0.5)"),
        (("policy.evaluation=['data=digits']",), "policy.evaluation names no threat"),
        (("policy.evaluation=['threats.Linf=0.1','attack=pgd']",), "a gate demands AutoAttack"),
        (("policy.evaluation=['threats.Linf=0.1','beyond=none']",), "a gate that knows only AutoAttack can be gamed"),
        (("policy.evaluation=['threats.Linf=0.1','doubts=false']",), "a gate that knows only AutoAttack can be gamed"),
        (("policy.evaluation=['threats.Linf=0.1','model.source=x']",), "model.source=x is not the policy's to say"),
        (("policy.evaluation=['threats.Linf=0.1','attack.queries=9']",), "another attack than the one people know"),
        (("policy.evaluation=['threats.Linf=0.1','eggs=2']",), "policy.evaluation: eggs: unknown setting"),
        (
            ("policy.evaluation=['threats.Linf=0.1','data=cifar10']",),
            "policy.evaluation: data.path is not set; say path=",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused_before_any_work(promote, overrides, message, capsys):
    promote(f"version={SOUND}", *overrides, code=MISUSE)
    assert message in capsys.readouterr().err


def test_a_name_a_server_or_a_database_that_is_not_there(here, uri, capsys):
    for verb in (["promote"], ["rollback", "reason=x"], ["models"]):
        assert main([*verb, "name=digit", f"tracking.uri={uri}"]) == MISUSE
        assert "name=digit is no registered model" in capsys.readouterr().err
        assert main([*verb, "name=digits", "tracking.uri=sqlite:///absent.db"]) == MISUSE
        assert "there is no such database" in capsys.readouterr().err
    assert main(["rollback", "name=digits", f"tracking.uri={uri}"]) == MISUSE
    assert "reason is not set" in capsys.readouterr().err
    assert main(["rollback", "name=digits", "reason=x", f"tracking.uri={uri}"]) == MISUSE
    assert "name=digits has no champion" in capsys.readouterr().err
    assert not (here / "absent.db").exists()


def test_a_rollback_that_died_is_finished_and_not_done_twice(promote, uri, monkeypatch, capsys):
    for number in (SOUND, BETTER):
        promote(f"version={number}")
    back = ["rollback", "name=digits", "reason=eights", f"tracking.uri={uri}"]
    with monkeypatch.context() as patch:
        patch.setattr(audit, "settle", dying(audit.settle, after=1))
        assert main(back) == FAILURE
    assert versions.aliases(uri, "digits")["champion"] == SOUND
    assert main(back) == OK
    assert f"is version {SOUND} again, in place of {BETTER}" in capsys.readouterr().out
    assert versions.aliases(uri, "digits") == {"champion": SOUND}
    assert [r.state for r in audit.records(uri, "digits")] == ["done", "done", "done", "tidied"]


def dying(call: Any, after: int) -> Any:
    """``call``, which fails from its next call but ``after`` on."""
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise Failure("the registry went away")
        return call(*args, **kwargs)

    return wrapped


def test_evaluations_are_found_again(promote, uri, capsys):
    """The gate takes up what was evaluated before, by whoever: same model, same images, same attacks."""
    promote(f"version={SOUND}")
    capsys.readouterr()
    versions.point(uri, "digits", "champion", None)
    promote(f"version={SOUND}")
    assert "note: continuing from" in capsys.readouterr().out
