"""The parts of a training, each from its place in the config."""

import functools
from collections.abc import Mapping
from typing import Any

from pipelines.build import build, check, parameters, target
from pipelines.errors import Misuse
from pipelines.storage import files
from trainers import models, optimizers
from trainers.alarm import Alarm
from trainers.data.held_out import HeldOut
from trainers.data.photographic import Photographic
from trainers.loop import Fit


def objective(config: Mapping[str, Any]) -> Any:
    """The objective.  Its ``threat`` key is there for its parts to refer to; it is an argument only of some."""
    node, trust = dict(config["objective"]), config["trust"]
    if "threat" in node and "threat" not in parameters(target(node, "objective", trust)):
        build(node.pop("threat"), "objective.threat", trust)
    return build(node, "objective", trust)


def threat(config: Mapping[str, Any]) -> Any:
    return build(config["threat"], "threat", config["trust"])


def attack(config: Mapping[str, Any], where: str) -> Any:
    return build(config[where]["attack"], f"{where}.attack", config["trust"])


def data(config: Mapping[str, Any]) -> Any:
    """The data.  Its ``path`` key is there for its source to refer to, and says what opens the source's files."""
    node = {key: value for key, value in config["data"].items() if key not in ("path", "source")}
    return build(node, "data", config["trust"], source=source(config))


def source(config: Mapping[str, Any]) -> Any:
    """Where a set's examples come from, before anything is drawn from it or held out."""
    path, node, trust = config["data"].get("path"), config["data"]["source"], config["trust"]
    opens = "files" in parameters(target(node, "data.source", trust))
    extra = {"files": files(path or ".")} if opens else {}
    return build(node, "data.source", trust, **extra)


def exam(config: Mapping[str, Any]) -> HeldOut:
    """The examples a model is judged on: the test split of the same ``data``, without what is for training only."""
    node, trust = config["data"], config["trust"]
    if "source" not in node:
        raise Misuse(
            "data has no source: an evaluation reads a set's examples themselves; give data=NAME, or its _target_"
        )
    shared = ("input_size", "validation", "test", "split_seed", "lanes", "on_corrupt")
    given = {key: node[key] for key in shared if key in node}
    if "transform" in node:
        given["transform"] = build(node["transform"], "data.transform", trust)
    elif "transform" in parameters(target(node, "data", trust)):
        given["transform"] = Photographic()
    return HeldOut(source(config), limit=config["examples"], only=_names(config["only"]), **given)


def _names(path: str | None) -> list[str] | None:
    """The lines of a file."""
    if path is None:
        return None
    try:
        with files(path).open(path) as file:
            return [line.strip() for line in file.read().decode().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise Misuse(f"only={path} does not exist; give a file with an image's name on each line") from error


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
