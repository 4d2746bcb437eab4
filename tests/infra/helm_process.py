"""A container of the chart as a process of this machine."""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.infra.helm import Object, of_kind

Secrets = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Process:
    """What a kubelet would start: the command and the environment that the chart renders, with this interpreter's
    programs and a folder in the place of each volume."""

    command: list[str]
    environment: dict[str, str]

    @classmethod
    def of(cls, spec: Object, container: str, objects: list[Object], secrets: Secrets, folder: Path) -> "Process":
        """``spec``: of the pod; ``objects``: where its ConfigMaps are; ``folder``: where its volumes go."""
        (it,) = (each for each in spec["containers"] if each["name"] == container)
        _fill(spec.get("volumes", ()), objects, folder)
        places = {mount["mountPath"]: folder / mount["name"] for mount in it.get("volumeMounts", ())}

        def here(text: str) -> str:
            for path, place in places.items():
                text = re.sub(rf"^{re.escape(path)}(?=/|$)", str(place), text)
            return text

        environment: dict[str, str] = {}
        for source in it.get("envFrom", ()):
            environment |= secrets[source["secretRef"]["name"]]
        for each in it.get("env", ()):
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            value = secrets[reference["name"]][reference["key"]] if reference else here(each["value"])
            environment[each["name"]] = value
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        words = [here(word) for word in [*it["command"], *it["args"]]]
        return cls([str(shutil.which(words[0], path=environment["PATH"])), *words[1:]], environment)


def _fill(volumes: list[Object], objects: list[Object], folder: Path) -> None:
    for volume in volumes:
        place = folder / volume["name"]
        place.mkdir(parents=True, exist_ok=True)
        if "configMap" in volume:
            for name, text in of_kind(objects, "ConfigMap")[volume["configMap"]["name"]]["data"].items():
                (place / name).write_text(text)
