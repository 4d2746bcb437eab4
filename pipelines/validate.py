"""Combinations that cannot work, refused when the config is read; those that seldom do, warned of."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from pipelines.errors import Misuse

STRATEGIES = ("ddp",)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def numbers(config: Mapping[str, Any]) -> None:
    """Refuse settings out of range, before anything is built."""
    for setting in (
        "epochs",
        "workers",
        "accumulate",
        "batch_size",
        "alarm.examples",
        "evaluation.examples",
        "checkpoint.keep",
    ):
        value = _at(config, setting)
        if value is not None and value < 1:
            raise Misuse(f"{setting}={value} must be at least 1")
    if config["name"] is not None:
        name(config["name"])
    cpus = config["parallel"]["cpus_per_worker"]
    if cpus is not None and cpus <= 0:
        raise Misuse(f"parallel.cpus_per_worker={cpus:g} must be above 0; null shares out all there are")
    for setting in (
        "report.steps",
        "report.seconds",
        "checkpoint.minutes",
        "checkpoint.failures",
        "tracking.patience_minutes",
    ):
        if _at(config, setting) < 0:
            raise Misuse(f"{setting}={_at(config, setting):g} must not be negative")
    for setting in ("optimizer.lr", "optimizer.weight_decay", "threat.eps"):
        if isinstance(_at(config, setting), str):
            raise Misuse(f"{setting}={_at(config, setting)} is not a number; write it as 0.03, 3e-2 or 8/255")
    share = config["workers"] * config["accumulate"]
    if config["batch_size"] % share:
        raise Misuse(
            f"batch_size={config['batch_size']} cannot be divided among workers={config['workers']} x "
            f"accumulate={config['accumulate']}; use a multiple of {share}"
        )
    _one_of("device", config["device"], ("auto", "cpu", "cuda"))
    _one_of("precision", config["precision"], ("float32", "bfloat16"))
    _one_of("alarm.policy", config["alarm"]["policy"], ("off", "warn", "stop"))
    if config["ema"] is not None and not 0 < config["ema"] < 1:
        raise Misuse(f"ema={config['ema']:g} must be in (0, 1), such as 0.9998; null switches it off")
    if config["clip_norm"] is not None and config["clip_norm"] <= 0:
        raise Misuse(f"clip_norm={config['clip_norm']:g} must be above 0; null switches it off")
    if config["schedule"]["warmup_epochs"] >= config["epochs"] and config["schedule"]["warmup_epochs"] > 0:
        raise Misuse(
            f"schedule.warmup_epochs={config['schedule']['warmup_epochs']:g} leaves nothing of "
            f"epochs={config['epochs']}; shorten the warm-up or train longer"
        )
    if config["optimizer"].get("lr", 1) <= 0:
        raise Misuse(f"optimizer.lr={config['optimizer']['lr']:g} must be above 0")


def name(given: str) -> None:
    """``Misuse`` for what cannot name a run and its folder."""
    if not _NAME.fullmatch(given):
        raise Misuse(f"name={given} must begin with a letter or digit, and hold these, '.', '_' and '-' only")


def _at(config: Mapping[str, Any], setting: str) -> Any:
    """The setting at a dotted name; None where there is none."""
    value: Any = config
    for part in setting.split("."):
        value = value.get(part)
    return value


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise Misuse(f"{name}={value} is unknown; choose one of {', '.join(known)}")


def parallel(config: Mapping[str, Any], second_order: bool) -> None:
    """Refuse what gives wrong gradients through an input gradient (and what is not offered at all)."""
    strategy, static = config["parallel"]["strategy"], config["parallel"]["static_graph"]
    if second_order and strategy.startswith("fsdp"):
        raise Misuse(
            f"parallel.strategy={strategy}: FSDP has no double backward, which a gradient penalty needs; use ddp"
        )
    _one_of("parallel.strategy", strategy, STRATEGIES)
    if static:
        raise Misuse(
            "parallel.static_graph=true: DDP then silently skips the all-reduce of a gradient penalty, and gains "
            "nothing for the other objectives; set parallel.static_graph=false"
        )


def doubts(model: nn.Module, objective: Any, threat: Any, soft_targets: bool) -> Iterator[str]:
    """What will run but is known to disappoint."""
    from trainers.models import kink_sites
    from trainers.objectives.finite_difference import FiniteDifference

    if threat.norm == "L2" and threat.eps < 0.1:
        yield (
            f"threat.eps={threat.eps:g} for L2 bounds the whole image's norm and is hardly a perturbation; "
            "CIFAR-10 results use 0.5: set threat.eps"
        )
    kinks = kink_sites(model)
    if objective.second_order and kinks:
        yield (
            f"a gradient penalty on a network with ReLU-like activations ({len(kinks)} sites, first {kinks[0]}): "
            "their second derivative is zero almost everywhere and the penalty hardly trains; "
            "use model.activation=gelu or silu"
        )
    of_the_loss = objective.second_order and getattr(objective, "of", "loss") == "loss"
    if (
        (of_the_loss or isinstance(objective, FiniteDifference))
        and not soft_targets
        and not getattr(objective, "smoothing", 0)
    ):
        yield (
            "a gradient penalty without mixup or label smoothing: the loss and its gradient vanish on the training "
            "points and the penalty is met for free; set data.mixing.mixup_alpha=0.8 or objective.smoothing=0.1"
        )
