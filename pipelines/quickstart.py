"""``holdfast quickstart``: the real job on the embedded digits, standard training against GradNorm, and AutoAttack."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.compose import compose
from pipelines.evaluate import evaluate
from pipelines.evaluation.conclude import PAGE
from pipelines.train import Outcome, train

ARMS = {"standard training": "digits_standard", "GradNorm": "digits_gradnorm"}
NAME = "digits"
EXAMPLES = 128
"""Held-out digits that AutoAttack is run on."""


def quickstart(overrides: Sequence[str], console: Console, debug: bool = False) -> None:
    """Train both arms with the same network, epochs and data; print one table; register the robust one, and attack it.

    ``overrides`` are settings of ``train``; the evaluation follows ``storage``, ``tracking`` and ``threat``.
    """
    outcomes = {}
    for title, recipe in ARMS.items():
        register = [f"register_as={NAME}"] if recipe == "digits_gradnorm" else []
        config = compose("train", [f"recipe={recipe}", *register, *overrides])
        outcomes[title] = train(config, console, debug)
    standard, robust = outcomes.values()
    threat = f"{config['threat']['norm']} eps {config['threat']['eps']:g}"
    console.print()
    console.print(_table(outcomes, threat, config["evaluation"]["attack"]["steps"]))
    console.print()
    attacked = _evaluate(standard, robust, config, console)
    console.print()
    console.print(_next(robust, attacked), soft_wrap=True)


def _evaluate(standard: Outcome, robust: Outcome, config: Mapping[str, Any], console: Console) -> dict[str, Any]:
    """AutoAttack on some held-out digits, at what the model was judged at, the standard model beside it in pictures."""
    overrides = [
        f"model.source=models:/{robust.registered_as}/{robust.version}",
        f"report.beside.source=runs:/{standard.run_id}",
        f"threats.{config['threat']['norm']}={config['threat']['eps']}",
        f"examples={EXAMPLES}",
        f"storage={config['storage']}",
        f"tracking.uri={config['tracking']['uri']}",
    ]
    return evaluate(compose("evaluate", overrides), console, shlex.join(["holdfast", "evaluate", *overrides]))


def _table(outcomes: dict[str, Outcome], threat: str, steps: int) -> Table:
    n = next(iter(outcomes.values())).metrics["test_examples"]
    table = Table(title=f"scikit-learn digits, {n:.0f} held-out images, {threat}", title_justify="left", box=None)
    table.add_column("")
    columns = ("clean accuracy", f"PGD-{steps} robust accuracy", "mean L1 input gradient", "cost in standard steps")
    for column in columns:
        table.add_column(column, justify="right")
    for title, outcome in outcomes.items():
        m, c = outcome.metrics, outcome.cost
        table.add_row(
            title,
            f"{m['clean_accuracy']:.3f}",
            f"{m['robust_accuracy']:.3f}",
            f"{m['gradient_l1']:.2f}",
            f"{c['standard_steps']:,.0f} ({c['standard_steps_a_step']:.2f} a step)",
        )
    return table


def _next(outcome: Outcome, attacked: Mapping[str, Any]) -> str:
    model = f"models:/{outcome.registered_as}/{outcome.version}"
    return "\n".join(
        (
            "next:",
            f"  read the report        {attacked['storage']}/{PAGE}",
            f"  look at both runs      .venv/bin/mlflow ui --backend-store-uri {outcome.tracking_uri}",
            "  load the robust model  .venv/bin/python -c 'from pipelines.tracking import registry; "
            f'print(registry.load("{model}", "{outcome.tracking_uri}"))\'',
            "  train on your images   .venv/bin/holdfast train recipe=folder_gradnorm data.path=/path/to/images",
        )
    )
