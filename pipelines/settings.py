"""The schema of each verb: every key a config may have, its type and its default."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Model:
    name: str = MISSING
    activation: str | None = None
    activation_parameters: dict[str, Any] = field(default_factory=dict)
    stem: str = "auto"
    weights: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class Schedule:
    warmup_epochs: float = 0.0
    warmup_lr: float = 0.0
    min_lr: float = 0.0


@dataclass
class Alarm:
    policy: str = "warn"
    examples: int = 256
    attack: Any = MISSING
    share: float = 0.5


@dataclass
class Report:
    steps: int = 0
    seconds: float = 5.0
    each_step: bool = False


@dataclass
class Checkpoint:
    minutes: float = 10.0
    keep: int = 2
    failures: int = 3


@dataclass
class Parallel:
    strategy: str = "ddp"
    static_graph: bool = False
    cpus_per_worker: float | None = None


@dataclass
class Tracking:
    uri: str = MISSING
    experiment: str = "holdfast"
    patience_minutes: float = 30.0


@dataclass
class Evaluation:
    attack: Any = MISSING
    examples: int | None = None


@dataclass
class Candidate:
    """A model to judge: from anywhere (``source``), or a timm model (``name``) with weights."""

    source: str | None = None
    name: str | None = None
    weights: str | None = None
    activation: str | None = None
    activation_parameters: dict[str, Any] = field(default_factory=dict)
    stem: str = "auto"
    arguments: dict[str, Any] = field(default_factory=dict)
    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass
class Curve:
    draw: bool = False
    steps: int = 50
    halvings: int = 5


@dataclass
class EvaluationReport:
    pictures: int = 6
    beside: Candidate = field(default_factory=Candidate)


@dataclass
class Journal:
    seconds: float = 1.0


@dataclass
class Evaluate:
    name: str | None = None
    model: Candidate = field(default_factory=Candidate)
    data: Any = MISSING
    examples: int | None = None
    only: str | None = None
    threats: dict[str, Any] = field(default_factory=dict)
    attack: Any = MISSING
    beyond: Any = None
    doubts: bool = True
    curve: Curve = field(default_factory=Curve)
    report: EvaluationReport = field(default_factory=EvaluationReport)
    suite: Any = None
    submission: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    reference: bool = False
    batch_size: int = 64
    compile: bool = False
    workers: int = 1
    device: str = "auto"
    parallel: Parallel = field(default_factory=Parallel)
    journal: Journal = field(default_factory=Journal)
    tracking: Tracking = field(default_factory=Tracking)
    storage: str = MISSING
    json: str | None = None
    trust: Any = field(default_factory=list)


@dataclass
class Bar:
    floor: float = 0.0
    class_floor: float = 0.0
    rule: str = "not_worse"
    margin: float = 0.02


@dataclass
class Policy:
    evaluation: list[str] = field(default_factory=list)
    clean: Bar = field(default_factory=Bar)
    robust: Bar = field(default_factory=Bar)
    level: float = 0.05
    doubts: list[str] = field(default_factory=list)
    digest: str | None = None


@dataclass
class Promote:
    name: str = MISSING
    version: int | None = None
    to: str | None = None
    policy: Policy = field(default_factory=Policy)
    path: str | None = None
    watch: float | None = None
    markdown: str | None = None
    batch_size: int = 64
    compile: bool = False
    workers: int = 1
    device: str = "auto"
    tracking: Tracking = field(default_factory=Tracking)
    storage: str = MISSING
    json: str | None = None


@dataclass
class Rollback:
    name: str = MISSING
    reason: str = MISSING
    version: int | None = None
    tracking: Tracking = field(default_factory=Tracking)
    json: str | None = None


@dataclass
class Models:
    name: str | None = None
    tracking: Tracking = field(default_factory=Tracking)
    json: str | None = None


@dataclass
class Halving:
    use: bool = False
    first: int = 3
    factor: float = 3.0


@dataclass
class Search:
    algorithm: str = "random"
    trials: int | None = 16
    seed: int = 0
    weights: dict[str, float] = field(default_factory=lambda: {"clean_accuracy": 0.5, "robust_accuracy": 1.0})
    halving: Halving = field(default_factory=Halving)
    space: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tune:
    name: str | None = None
    resume: str | None = None
    search: Search = field(default_factory=Search)
    concurrent: int | None = None
    choose: str = "robust"
    finalists: int = 2
    seeds: int = 3
    examples: int | None = 128
    prune_relu: bool = False


@dataclass
class When:
    data: bool = True
    recipe: bool = True
    code: bool = True
    age_days: float | None = None
    fresh: list[str] = field(default_factory=list)
    fallen: float = 0.02


@dataclass
class Checks:
    smallest: float = 0.1
    unreadable: float = 0.01
    read: int | None = 1000
    new_classes: bool = False


@dataclass
class Retrain:
    to: str | None = None
    policy: Policy = field(default_factory=Policy)
    path: str | None = None
    when: When = field(default_factory=When)
    checks: Checks = field(default_factory=Checks)
    warm: bool = False
    notify: list[str] = field(default_factory=list)
    markdown: str | None = None


@dataclass
class Timetable:
    every: float | None = None
    cron: str | None = None
    listen: str | None = None


@dataclass
class Train:
    recipe: str = MISSING
    name: str | None = None
    epochs: int = MISSING
    seed: int = 0
    batch_size: int = MISSING
    accumulate: int = 1
    workers: int = 1
    device: str = "auto"
    threat: Any = MISSING
    model: Model = field(default_factory=Model)
    data: Any = MISSING
    objective: Any = MISSING
    optimizer: Any = MISSING
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float | None = None
    ema: float | None = None
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False
    alarm: Alarm = field(default_factory=Alarm)
    evaluation: Evaluation = field(default_factory=Evaluation)
    report: Report = field(default_factory=Report)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    parallel: Parallel = field(default_factory=Parallel)
    register_as: str | None = None
    tracking: Tracking = field(default_factory=Tracking)
    storage: str = MISSING
    json: str | None = None
    trust: list[str] = field(default_factory=list)


@dataclass
class Cost:
    run: str | None = None
    search: str | None = None
    name: str | None = None
    since: str | None = None
    last: int = 20
    prices: Any = None
    tracking: Tracking = field(default_factory=Tracking)
