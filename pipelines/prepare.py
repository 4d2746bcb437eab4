"""Before a training starts: what cannot work is refused, what will disappoint is named."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from pipelines import parts, places, validate
from pipelines.build import check
from pipelines.errors import Misuse
from pipelines.tracking import registry
from trainers import optimizers
from trainers.step import check_compiles


def prepare(config: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """``(data, doubts)`` after everything that can be refused without a worker was looked at."""
    validate.numbers(config)
    places.check(config)
    threat = parts.threat(config)
    objective = parts.objective(config)
    validate.parallel(config, objective.second_order)
    parts.attack(config, "alarm")
    parts.attack(config, "evaluation")
    check(config["optimizer"], "optimizer", config["trust"])
    if config["register_as"]:
        registry.check_name(config["register_as"])
    try:
        data = parts.data(config)
        parts.settings(config, len(data.classes))
        data.check(config["workers"])
        for each in (threat, *within(objective)):
            if hasattr(each, "check"):  # threats, edges, weights of channels: whether they fit the images
                each.check(data.input_size)
        if config["alarm"]["policy"] != "off" and not data.size("validation"):
            raise Misuse(
                f"alarm.policy={config['alarm']['policy']} needs held-out images: set data.validation to 256 or so, "
                "or alarm.policy=off"
            )
        if config["compile"]:
            check_compiles(objective)
        model = parts.network(config, data, objective.second_order)
        optimizers.build(model, parts.optimizer(config), config["optimizer"].get("weight_decay", 0.0))
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Misuse(str(error)) from error
    return data, list(validate.doubts(model, objective, threat, data.soft_targets))


def within(part: Any) -> Iterator[Any]:
    """``part``, and the parts it is made of."""
    yield part
    for each in fields(part) if is_dataclass(part) else ():
        yield from within(getattr(part, each.name))
