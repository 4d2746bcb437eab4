"""What the chart gives to Prometheus and Grafana."""

import json
import re
from typing import Any

import promql_parser

from tests.infra.helm import CHART, of_kind, render


def test_monitoring_is_there_where_its_kinds_are():
    kinds = ("PodMonitor", "PrometheusRule")
    plain = render("minimal")
    assert not any(of_kind(plain, kind) for kind in kinds)
    one, both = ([f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in some] for some in (kinds[:1], kinds))
    assert all(of_kind(render("minimal", None, *both), kind) for kind in kinds)
    for off in (render("minimal", None, *one), render("minimal", {"monitoring": {"enabled": False}}, *both)):
        assert not any(of_kind(off, kind) for kind in kinds)


def expressions(objects: list[dict[str, Any]]) -> dict[str, str]:
    """Every query of the rules and the dashboard, Grafana's variables filled in."""
    (group,) = of_kind(objects, "PrometheusRule")["holdfast"]["spec"]["groups"]
    found = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    board = json.loads(of_kind(objects, "ConfigMap")["holdfast-dashboard"]["data"]["holdfast.json"])
    for panel in board["panels"]:
        for target in panel["targets"]:
            found[f"{panel['title']} {target['refId']}"] = (
                target["expr"].replace("$namespace", "ml").replace("$__range", "1d")
            )
    return found


def selectors(query: str) -> set[str]:
    """The metrics that a query reads; a query that is no PromQL is an error."""
    names: set[str] = set()

    def visit(node: Any) -> bool:
        selector = node.vector_selector if isinstance(node, promql_parser.MatrixSelector) else node
        if isinstance(selector, promql_parser.VectorSelector):
            names.add(selector.name)
        return True

    promql_parser.walk(promql_parser.parse(query), visit)
    return names


def test_every_query_is_promql_over_metrics_that_the_guide_names(everything):
    guide = (CHART.parent / "README.md").read_text()
    told = set(re.findall(r"`((?:ray|kuberay|kueue|kube|karpenter|DCGM)_[A-Za-z0-9_]+)`", guide))
    read = set().union(*(selectors(query) for query in expressions(everything).values()))
    assert len(read) > 12
    assert read == told


def test_the_metrics_of_ray_are_rays(everything):
    """By the installed Ray's own sources."""
    from importlib.metadata import files

    sources = "".join(
        path.read_text()
        for path in files("ray") or ()
        if path.suffix == ".py"
        and re.search("reporter_agent|train/v2/_internal/metrics|dashboard/modules/metrics", str(path))
    )
    read = set().union(*(selectors(query) for query in expressions(everything).values()))
    ours = {name for name in read if name.startswith("ray_") and not name.startswith("ray_holdfast_")}
    assert ours
    for name in ours:
        assert f'"{name.removeprefix("ray_")}"' in sources, name


def test_an_alert_says_what_to_do(everything):
    (group,) = of_kind(everything, "PrometheusRule")["holdfast"]["spec"]["groups"]
    assert len(group["rules"]) == 6
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.search(r"`[^`]+`", rule["annotations"]["description"]), "a command to begin with"
        assert "{{ " not in rule["expr"]
