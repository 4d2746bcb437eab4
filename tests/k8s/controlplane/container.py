"""A container's environment, as Kubernetes defines it: values, references, and ``$(NAME)`` in them."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Object = dict[str, Any]
Read = Callable[[str, str], Object | None]
"""``read(kind, name)``: a ConfigMap or Secret of the pod's namespace, or None."""


class NotThere(Exception):
    """A ConfigMap, a Secret or a key that the container needs: it waits, as CreateContainerConfigError."""


def environment(pod: Object, container: Object, read: Read) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        for field, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if reference := source.get(field):
                prefix = source.get("prefix", "")
                found |= {prefix + key: value for key, value in (_data(read, kind, reference) or {}).items()}
    for each in container.get("env", ()):
        value = _from(pod, each["valueFrom"], read) if "valueFrom" in each else expand(each.get("value", ""), found)
        if value is not None:
            found[each["name"]] = value
    return found


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes its value where it has one, and ``$$`` a dollar."""

    def one(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else values.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", one, text)


def expanded(words: Iterable[str], values: Mapping[str, str]) -> list[str]:
    return [expand(word, values) for word in words]


def _from(pod: Object, source: Object, read: Read) -> str | None:
    for field, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(field):
            data = _data(read, kind, reference)
            if data is not None and reference["key"] in data:
                return data[reference["key"]]
            if reference.get("optional"):
                return None
            raise NotThere(f"couldn't find key {reference['key']} in {kind} {reference['name']}")
    if reference := source.get("fieldRef"):
        return _field(pod, reference["fieldPath"])
    raise NotThere(f"{', '.join(source)}: this kubelet of the tests knows configMapKeyRef, secretKeyRef and fieldRef")


def _data(read: Read, kind: str, reference: Object) -> dict[str, str] | None:
    found = read(kind, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise NotThere(f'{kind.lower()} "{reference["name"]}" not found')
    data = found.get("data") or {}
    return {key: base64.b64decode(value).decode() for key, value in data.items()} if kind == "Secret" else dict(data)


def _field(pod: Object, path: str) -> str:
    """``metadata.name``, ``metadata.labels['key']``, ``spec.nodeName``, ``status.podIP``; empty where there is none."""
    if keyed := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return pod["metadata"].get(keyed[1], {}).get(keyed[2], "")
    if path in ("status.podIP", "status.hostIP"):
        return "127.0.0.1"
    section, _, name = path.partition(".")
    return pod[section].get(name, "")
