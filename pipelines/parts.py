"""The parts of a training, each from its place in the config."""

import functools
from collections.abc import Mapping
from typing import Any

from pipelines.build import build, check, parameters, target
from pipelines.storage import files
from trainers import models, optimizers
from trainers.alarm import Alarm
from trainers.loop import Fit


def objective(config: Mapping[str, Any]) -> Any:
    """The objective.  Its ``threat`` key is there for its parts to refer to, not an argument of its own."""
    node = dict(config["objective"])
    if "threat" in node:
        build(node.pop("threat"), "objective.threat", config["trust"])
    return build(node, "objective", config["trust"])


def threat(config: Mapping[str, Any]) -> Any:
    return build(config["threat"], "threat", config["trust"])


def attack(config: Mapping[str, Any], where: str) -> Any:
    return build(config[where]["attack"], f"{where}.attack", config["trust"])


def data(config: Mapping[str, Any]) -> Any:
    """The data.  Its ``path`` key is there for its source to refer to, and says what opens the source's files."""
    node, trust = dict(config["data"]), config["trust"]
    path, source = node.pop("path", None), node.pop("source")
    opens = "files" in parameters(target(source, "data.source", trust))
    extra = {"files": files(path or ".")} if opens else {}
    return build(node, "data", trust, source=build(source, "data.source", trust, **extra))


def optimizer(config: Mapping[str, Any]) -> Any:
    """A factory: parameter groups to optimizer."""
    node = dict(config["optimizer"])
    check(node, "optimizer", config["trust"])
    made = target(node, "optimizer", config["trust"])
    node.pop("_target_")
    return functools.partial(made, **node)


def network(config: Mapping[str, Any], data: Any, second_order: bool) -> Any:
    """The network of a config, for the classes and images of ``data``."""
    model = config["model"]
    activation = model["activation"] and {"name": model["activation"], **model["activation_parameters"]}
    return models.create(
        model["name"],
        len(data.classes),
        data.input_size,
        activation=activation,
        mean=data.mean,
        std=data.std,
        weights=model["weights"],
        stem=model["stem"],
        second_order=second_order,
        seed=config["seed"],
        arguments=model["arguments"],
        files=files(model["weights"]) if "://" in (model["weights"] or "") else None,
    )


def settings(config: Mapping[str, Any], classes: int) -> Fit:
    """The loop's settings, as the config has them.  The alarm waits until the probe is clear of chance, 1/K."""
    schedule = config["schedule"]
    return Fit(
        epochs=config["epochs"],
        schedule=optimizers.Cosine(lr=config["optimizer"]["lr"], **schedule),
        seed=config["seed"],
        accumulate=config["accumulate"],
        clip_norm=config["clip_norm"],
        bf16=config["precision"] == "bfloat16",
        channels_last=config["channels_last"],
        compile=config["compile"],
        report_steps=config["report"]["steps"] or None,
        report_seconds=None if config["report"]["steps"] else config["report"]["seconds"] or None,
        each_step=config["report"]["each_step"],
        alarm=Alarm(config["alarm"]["policy"], config["alarm"]["share"], minimum=min(1 / classes + 0.1, 1.0)),
    )
