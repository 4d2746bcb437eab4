"""The only door to the Kubernetes API: plain objects in and out, and errors that say what to do."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.exceptions import NameResolutionError, SSLError
from yaml import YAMLError

from k8s.errors import Misuse, Refusal, Unreachable

Object = dict[str, Any]
PATHS = {
    "RayJob": "apis/ray.io/v1/namespaces/{namespace}/rayjobs",
    "Lease": "apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    "Pod": "api/v1/namespaces/{namespace}/pods",
    "Event": "api/v1/namespaces/{namespace}/events",
    "Secret": "api/v1/namespaces/{namespace}/secrets",
    "ServiceAccount": "api/v1/namespaces/{namespace}/serviceaccounts",
    "LocalQueue": "apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/localqueues",
    "Workload": "apis/kueue.x-k8s.io/v1beta2/namespaces/{namespace}/workloads",
}
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
LOG_SECONDS = 60.0
"""Without a line, after which a log is asked for anew: a connection may be dead without a word."""
_NEVER = (SSLError, NameResolutionError)
"""What a cluster that has not answered yet will not answer for by waiting: a wrong address, a wrong authority."""
_AGAIN = (408, 429, 500, 502, 503, 504)


class Api:
    """One cluster, one namespace.

    Errors: ``Misuse`` for no kube config and an unknown context; of each request ``Refusal``, or ``Unreachable`` for no
    answer, too many requests and a server in trouble, and for a token that is no longer taken.
    """

    def __init__(self, context: str | None = None, namespace: str | None = None) -> None:
        self.context = context
        self._client, found = _load(context)
        self.namespace = namespace or found
        self.host = str(self._client.configuration.host)
        self.read_seconds, self.answered = READ_SECONDS, False

    def get(self, kind: str, name: str) -> Object | None:
        try:
            return self._ask("GET", f"{self._path(kind)}/{name}")
        except Refusal as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, labels: Mapping[str, str] = {}, fields: str = "") -> list[Object]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        query = {"labelSelector": selector, "fieldSelector": fields}
        found = self._ask("GET", self._path(kind), {key: value for key, value in query.items() if value})
        kinds = {"apiVersion": found.get("apiVersion"), "kind": kind}
        return [{**kinds, **item} for item in found.get("items") or []]

    def create(self, body: Object, dry_run: bool = False) -> Object:
        """``Refusal`` with 409 if it is there already; unknown fields are refused."""
        query = {"fieldValidation": "Strict", "fieldManager": "holdfast", **({"dryRun": "All"} if dry_run else {})}
        return self._ask("POST", self._path(body["kind"]), query, body)

    def replace(self, body: Object) -> Object:
        """Of the version it was read at: ``Refusal`` with 409 if somebody wrote it since."""
        return self._ask("PUT", f"{self._path(body['kind'])}/{body['metadata']['name']}", {}, body)

    def delete(self, kind: str, name: str, uid: str | None = None) -> bool:
        """Whether it was there.  ``uid``: this very one, and none that has its name by now."""
        body = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            self._ask("DELETE", f"{self._path(kind)}/{name}", {}, body)
            return True
        except Refusal as error:
            if error.status in (404, 409):
                return False
            raise

    def may(self, verb: str, group: str, resource: str) -> bool:
        """Whether the one who asks may do that in the namespace."""
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": self.namespace}
        kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        body = {**kind, "spec": {"resourceAttributes": attributes}}
        found = self._ask("POST", "apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {}, body)
        return bool(found["status"]["allowed"])

    def schema(self, group: str) -> Object | None:
        """OpenAPI of ``group`` (``ray.io/v1``), or None where it is not installed."""
        try:
            return self._ask("GET", f"openapi/v3/apis/{group}")
        except Refusal as error:
            if error.status == 404:
                return None
            raise

    def wait(self, kind: str, name: str, seconds: float) -> None:
        """Until something of ``name`` changed, or so long.

        A watch is only an alarm clock here, so that one which is cut, expires or is refused costs nothing but a
        second's sleep: what is true is always read afterwards.
        """
        began = time.monotonic()
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        try:
            query["resourceVersion"] = self._version(kind, name)
            with closing(self._send("GET", self._path(kind), query, None, stream=True, seconds=seconds + 5)) as answer:
                next(iter(answer.stream(amt=1)), None)
        except (Refusal, Unreachable, OSError):
            pass
        except Exception as error:  # urllib3's, of a stream that was cut
            if not type(error).__module__.startswith("urllib3"):
                raise
        if (left := 1.0 - (time.monotonic() - began)) > 0:
            time.sleep(min(left, seconds))

    def _version(self, kind: str, name: str) -> str:
        found = self.get(kind, name)
        return str(found["metadata"]["resourceVersion"]) if found else "0"

    def log(self, pod: str, since: str | None = None) -> Iterator[str]:
        """Lines of its first container, each after its time (RFC 3339) and a space, until the stream ends or breaks.

        Errors: ``Refusal`` and ``Unreachable``, before the first line.
        """
        query = {"follow": "true", "timestamps": "true", **({"sinceTime": since} if since else {})}
        with closing(
            self._send("GET", f"{self._path('Pod')}/{pod}/log", query, None, stream=True, seconds=LOG_SECONDS)
        ) as answer:
            rest = b""
            for part in answer.stream(amt=None, decode_content=True):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield line.decode(errors="replace")
            if rest:
                yield rest.decode(errors="replace")

    def _path(self, kind: str) -> str:
        return PATHS[kind].format(namespace=self.namespace)

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Object | None = None
    ) -> Object:
        with closing(self._send(method, path, query or {}, body)) as answer:
            found: Object = json.loads(answer.data or b"{}")
        return found

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        stream: bool = False,
        seconds: float | None = None,
    ) -> Any:
        url = f"{self.host}/{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": "application/json", **self._auth()}
        data = json.dumps(body) if body is not None else None
        timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds or self.read_seconds)
        try:
            answer = self._client.rest_client.pool_manager.request(
                method, url, body=data, headers=headers, timeout=timeout, retries=False, preload_content=not stream
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not self.answered and isinstance(error, _NEVER):
                raise Misuse(f"context={self.context or 'the current one'}: {self.host} ({_cause(error)})") from error
            raise Unreachable(f"{self.host} does not answer ({_cause(error)})") from error
        if answer.status < 400:
            self.answered = True
            return answer
        said = _message(answer.data)
        answer.close()
        if answer.status in _AGAIN:
            time.sleep(_pause(answer, self.read_seconds))
            raise Unreachable(f"{self.host} answers {answer.status} ({said})", answer.status)
        if answer.status == 401:
            if not self.answered:
                raise Misuse(f"{self.host} does not take the token of the kube config ({said}); log in again")
            self._renew()
            raise Unreachable(f"{self.host} does not take this token ({said}); log in again", 401)
        raise Refusal(answer.status, said)

    def _auth(self) -> dict[str, str]:
        configuration = self._client.configuration
        return {each["key"]: each["value"] for each in configuration.auth_settings().values() if each["in"] == "header"}

    def _renew(self) -> None:
        """Read the configuration once more: whoever gave it may have renewed the token in it."""
        try:
            self._client, _ = _load(self.context)
        except Misuse:
            return


def _load(context: str | None) -> tuple[Any, str]:
    """The library's client and the namespace that its configuration names."""
    from kubernetes import client, config
    from kubernetes.config import incluster_config

    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException as error:
            raise Misuse(f"this pod has no token of a service account ({error}); or set KUBECONFIG") from error
        namespace = Path(incluster_config.SERVICE_TOKEN_FILENAME).with_name("namespace")
        return client.ApiClient(configuration), namespace.read_text().strip()
    file = os.environ.get("KUBECONFIG") or None  # the library looks once, when it is imported
    try:
        contexts, active = config.list_kube_config_contexts(file)
    except (config.ConfigException, YAMLError, OSError) as error:
        raise Misuse(
            f"no kube config ({str(error).splitlines()[0]}): set KUBECONFIG, or run `aws eks update-kubeconfig --name "
            "CLUSTER` or the like; backend=local and backend=ray need none"
        ) from error
    known = {each["name"]: each for each in contexts}
    if context is not None and context not in known:
        raise Misuse(f"context={context} is not in the kube config; there are {', '.join(sorted(known))}")
    chosen = known[context] if context else active
    try:
        found = config.new_client_from_config(file, context)
    except (config.ConfigException, OSError) as error:
        raise Misuse(f"context={chosen['name']} of the kube config cannot be used ({error})") from error
    return found, chosen["context"].get("namespace") or "default"


def _pause(answer: Any, most: float) -> float:
    """Seconds that a server in trouble asks for (Retry-After) before it is asked again."""
    try:
        return min(urllib3.Retry().get_retry_after(answer) or 0.0, most)
    except urllib3.exceptions.InvalidHeader:
        return 0.0


def _message(data: bytes | None) -> str:
    try:
        return str(json.loads(data or b"{}").get("message") or "no reason given")
    except ValueError:
        return (data or b"").decode(errors="replace").strip()[:300] or "no reason given"


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return str(reason).rpartition(": ")[2] or type(error).__name__
