"""What a search found, as people read it: tables, a picture of the front, and the parent run in MLflow."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.search import front
from pipelines.search.finalists import Finalist, Seed
from pipelines.search.front import Trial
from pipelines.search.space import Axis

LEAST = 4
"""Trials below which nothing is said of importance."""


def trials(ranked: Sequence[Trial], choose: str, console: Console, most: int = 10) -> None:
    edge = {trial.name for trial in front.front(ranked)}
    table = Table(title=f"best by {choose}, on validation images; * is on the front", title_justify="left", box=None)
    for column in ("", "clean", "robust", "epochs", "trial"):
        table.add_column(column, justify="left" if column in ("", "trial") else "right", overflow="fold")
    for trial in ranked[:most]:
        mark = "*" if trial.name in edge else ""
        numbers = (f"{trial.clean:.3f}", f"{trial.robust:.3f}", f"{trial.epochs:.0f}")
        table.add_row(mark, *numbers, escape(trial.said))
    console.print(table)


def finalists(found: Sequence[Finalist], won: Finalist, console: Console) -> None:
    n, seeds = found[0].seeds[0].n, len(found[0].seeds)
    title = f"finalists over {seeds} seeds, on {n} test images: mean and 95 % interval of the mean"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("", "clean", "AutoAttack and beyond", "doubts", "trial"):
        table.add_column(column, overflow="fold")
    for each in found:
        doubts = sorted({doubt for seed in each.seeds for doubt in seed.doubts})
        row = (_between(each.spread("clean")), _between(each.spread("robust")), ", ".join(doubts) or "none")
        table.add_row("won" if each is won else "", *row, escape(each.trial.said))
    console.print(table)


def _between(spread: tuple[float, float | None]) -> str:
    mean, half = spread
    return f"{mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def cost(trials: Sequence[Trial], proven: Sequence[Finalist]) -> dict[str, float]:
    """Of all trainings that came to their end; of a trial that was ended early only its epochs are known."""
    whole = [trial for trial in trials if trial.steps is not None]
    spent: list[Trial | Seed] = [*whole, *(seed for each in proven for seed in each.seeds)]
    return {
        "trainings": len(spent),
        "standard_steps": sum(each.steps or 0.0 for each in spent),
        "train_seconds": sum(each.seconds or 0.0 for each in spent),
        "ended_early": len(trials) - len(whole),
        "ended_early_epochs": sum(trial.epochs for trial in trials if trial.steps is None),
    }


def cost_said(found: Mapping[str, float]) -> str:
    number, epochs = found["ended_early"], found["ended_early_epochs"]
    early = f"; {number:.0f} ended early after {epochs:.0f} epochs in all, not counted" if number else ""
    return (
        f"{found['standard_steps']:,.0f} standard steps in {found['train_seconds']:.0f} s of {found['trainings']:.0f} "
        f"trainings, finalists included{early}"
    )


def importance(trials: Sequence[Trial], axes: Sequence[Axis], score: Mapping[str, float]) -> dict[str, float]:
    """The share of the score's variance that each setting explains, by fANOVA; empty for too few trials.

    Source: Hutter, Hoos and Leyton-Brown, *An efficient approach for assessing hyperparameter importance*, ICML 2014,
    as Optuna has it.
    """
    import optuna

    values = [sum(score[key] * getattr(trial, key.partition("_")[0]) for key in score) for trial in trials]
    whole = [axis for axis in axes if len({str(trial.sample[axis.key]) for trial in trials}) > 1]
    if len(trials) < LEAST or not whole or len(set(values)) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    scales = {axis.key: _distribution(axis) for axis in whole}
    for trial, value in zip(trials, values, strict=True):
        sample = {key: trial.sample[key] for key in scales}
        study.add_trial(optuna.trial.create_trial(params=sample, distributions=scales, value=value))
    return dict(optuna.importance.get_param_importances(study))


def _distribution(axis: Axis) -> Any:
    from optuna import distributions

    if axis.listed:
        return distributions.CategoricalDistribution(axis.values)
    low, high = axis.values
    if axis.kind == "int":
        return distributions.IntDistribution(int(low), int(high))
    return distributions.FloatDistribution(low, high, log=axis.kind == "log")


def leave(uri: str, run_id: str, found: Mapping[str, Any], ranked: Sequence[Trial]) -> None:
    """Front, tables and numbers in the search's own run."""
    from pipelines.tracking import searches

    with tempfile.TemporaryDirectory(prefix="holdfast-") as folder:
        here = Path(folder)
        picture(ranked, here / "front.png")
        (here / "search.md").write_text(markdown(found))
        searches.log(uri, run_id, found, here, markdown(found))


def picture(ranked: Sequence[Trial], to: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    edge = sorted(front.front(ranked), key=lambda trial: trial.clean)
    axes.scatter([t.clean for t in ranked], [t.robust for t in ranked], s=18, color="#9aa0a6", label="trial")
    line = ([t.clean for t in edge], [t.robust for t in edge])
    axes.plot(*line, color="#1a56c4", marker="o", markersize=5, drawstyle="steps-pre", label="front")
    axes.set_xlabel("clean accuracy, validation images")
    axes.set_ylabel("robust accuracy (PGD), validation images")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(to)


def markdown(found: Mapping[str, Any]) -> str:
    lines = [
        f"Best by `{found['choose']}`, on validation images.",
        "",
        "| | clean | robust | epochs | trial |",
        "|---|---|---|---|---|",
    ]
    for trial in found["trials"]:
        mark = "front" if trial["name"] in found["front"] else ""
        lines.append(
            f"| {mark} | {trial['clean']:.3f} | {trial['robust']:.3f} | {trial['epochs']:.0f} | {trial['said']} |"
        )
    lines += ["", "Finalists over seeds, on test images, AutoAttack and the attack beyond it.", ""]
    lines += ["| | clean | robust | trial |", "|---|---|---|---|"]
    for each in found["finalists"]:
        mark = "won" if each["name"] == found["winner"] else ""
        lines.append(f"| {mark} | {_between(each['clean'])} | {_between(each['robust'])} | {each['sample']} |")
    lines += ["", f"Cost: {cost_said(found['cost'])}."]
    if found["importance"]:
        lines += ["", "Importance: " + ", ".join(f"{key} {share:.2f}" for key, share in found["importance"].items())]
    return "\n".join(lines) + "\n"


def plain(trial: Trial) -> dict[str, Any]:
    return {**asdict(trial), "said": trial.said}
