"""``holdfast render``: what would be created, as YAML, with no cluster needed."""

from collections.abc import Sequence
from typing import Any

import yaml

from k8s import job as jobs
from k8s import pools, rayjob, schedule
from k8s.errors import Misuse, nearest
from k8s.settings import read

WHAT = ("rayjob", "raycluster", "cronjob", "raycronjob", "pools")


def render(words: Sequence[str], command: Sequence[str]) -> str:
    """YAML documents of ``rayjob`` (the default), ``raycluster``, ``cronjob``, ``raycronjob``; or the ``pools``."""
    what, *rest = words if words and "=" not in words[0] else ["rayjob", *words]
    if what not in WHAT:
        raise Misuse(f"render {what} is unknown{nearest(what, WHAT)}")
    cron = {"schedule": "", "time_zone": "Etc/UTC"}
    if what in ("cronjob", "raycronjob"):
        for word in [word for word in rest if word.partition("=")[0] in cron]:
            rest.remove(word)
            key, _, value = word.partition("=")
            cron[key] = value
        if not cron["schedule"]:
            raise Misuse("schedule is not set: five fields of cron, as in schedule='0 3 * * 1'")
    settings = read(rest)
    if command and what in ("pools", "raycluster"):
        raise Misuse(f"render {what} takes no command after --; a rayjob, cronjob or raycronjob does")
    if what == "pools":
        return "\n".join(_line(pools.load(name, settings.pools)) for name in sorted(pools.names(settings.pools))) + "\n"
    if what == "raycluster":
        if not settings.name:
            raise Misuse("name is not set: a cluster that stays needs one, as in name=shared")
        return dump([rayjob.raycluster(settings, settings.name)])
    if what == "rayjob":
        return dump([rayjob.rayjob(settings, jobs.make(settings, command))])
    made = schedule.cronjob if what == "cronjob" else schedule.raycronjob
    return dump(made(settings, command, cron["schedule"], cron["time_zone"]))


def dump(documents: Sequence[dict[str, Any]]) -> str:
    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=10_000)


class _Plain(yaml.SafeDumper):
    """Without anchors, which a reader would have to follow."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _line(pool: pools.Pool) -> str:
    gpu = f"{pool.gpu.count} x {pool.gpu.type} ({pool.gpu.memory:g} GiB)" if pool.gpu else "no GPU"
    room = f"{pool.cpus:g} processors, {pool.memory:g} GiB"
    return f"{pool.name:<12}{pool.capacity:<11}{gpu:<22}{room:<28}{', '.join(pool.instance_types)}"
