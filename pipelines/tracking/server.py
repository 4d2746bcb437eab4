"""Where the tracking server is, whether it answers, and one bounded request to it."""

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import Misuse, first_line
from pipelines.redact import redact_text

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ANSWER_WITHIN = 5.0
_SQLITE = "sqlite:///"


def absolute(uri: str) -> str:
    """``uri`` with the path of a SQLite file made absolute: workers run in folders of their own.

    A bare path is refused, MLflow's file store is deprecated.
    """
    if uri.startswith(_SQLITE) and uri != f"{_SQLITE}:memory:":
        return _SQLITE + str(Path(uri.removeprefix(_SQLITE)).expanduser().absolute())
    if "://" not in uri and not uri.startswith("databricks"):
        raise Misuse(
            f"tracking.uri={uri} is not a tracking server: give http(s)://host:port, or sqlite:///{uri}/mlflow.db "
            "for a database on this machine"
        )
    return uri


def is_http(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def database(uri: str) -> Path | None:
    """The SQLite file that ``uri`` names, if it names one."""
    return Path(absolute(uri).removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def client(uri: str) -> "MlflowClient":
    """MLflow's client, without the log lines of a database's first migration."""
    uri = absolute(uri)
    if path := database(uri):
        _folder(uri, path)
    for noisy in ("mlflow.store.db.utils", "alembic", "mlflow.tracking.fluent"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri, registry_uri=uri)


@contextlib.contextmanager
def as_default(uri: str) -> Iterator[None]:
    """``uri`` as MLflow's process-wide server inside: ``SqlAlchemyStore.create_model_version`` and ``models:/name/1``
    look a model up there, whatever their client's own is."""
    import mlflow
    from mlflow.tracking._tracking_service import utils

    before, variable = utils._tracking_uri, os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(absolute(uri))
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]
        if variable is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = variable


_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
_bounding = threading.Lock()
_outside: list[dict[str, str | None]] = []
"""What the environment says outside, once for each that is inside: threads overlap."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """MLflow's own requests give up after half a minute inside, not after the four that its defaults add up to."""
    with _bounding:
        _outside.append(_outside[0] if _outside else {name: os.environ.get(name) for name in _LIMITS})
        os.environ.update(_LIMITS)
    try:
        yield
    finally:
        with _bounding:
            before = _outside.pop()
            for name, value in {} if _outside else before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def call(uri: str, endpoint: str, body: dict[str, Any], method: str = "POST", timeout: Any = 30.0) -> dict[str, Any]:
    """One request to a server over HTTP, with MLflow's own authentication and none of its retries (7 of up to 120 s).

    Errors: ``mlflow.exceptions.MlflowException``; ``RestException`` if the server answered with an error.
    """
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    payload = {"params": body} if method == "GET" else {"json": body}
    path = f"/api/2.0/mlflow/{endpoint}"
    response = http_request(
        get_default_host_creds(uri), path, method, max_retries=0, timeout=timeout, raise_on_status=False, **payload
    )
    return dict(verify_rest_response(response, path).json())


def check(uri: str, within: float = ANSWER_WITHIN) -> None:
    """``Misuse`` unless the server (or database) at ``uri`` answers.

    A server must take the connection within ``within`` seconds, and answer within twice that: one just started opens
    its database first.  A new SQLite database is made on the way, which takes some seconds.
    """
    import mlflow.tracking  # noqa: F401  its seconds are not the server's

    uri = absolute(uri)
    problem: list[BaseException] = []

    def ask() -> None:
        try:
            if is_http(uri):
                call(uri, "experiments/search", {"max_results": 1}, timeout=(within, 2 * within))
            else:
                client(uri).search_experiments(max_results=1)
        except BaseException as error:
            problem.append(error)

    if database(uri):
        ask()
    else:
        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(3 * within)
        if thread.is_alive():
            problem.append(TimeoutError(f"no answer within {3 * within:g} s"))
    if problem:
        raise _unreachable(uri, problem[0]) from None


def check_there(uri: str) -> None:
    """As ``check``, and ``Misuse`` for a SQLite database that is not there: nothing would be found in a new one."""
    path = database(uri)
    if path and not path.exists():
        raise Misuse(f"tracking.uri={uri}: there is no such database; correct tracking.uri, or train a model first")
    check(uri)


def _unreachable(uri: str, error: BaseException) -> Misuse:
    if isinstance(error, Misuse):
        return error
    reason = redact_text(first_line(error))
    hint = "start it (`mlflow server`), correct the address, or use tracking.uri=sqlite:///runs/mlflow.db"
    if any(code in reason for code in ("401", "403", "Forbidden", "Unauthorized", "PERMISSION_DENIED")):
        hint = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), or add this host "
            "name to the server's --allowed-hosts"
        )
    elif database(uri):
        hint = "give a writable place, or move a file that is not an MLflow database out of the way"
    return Misuse(f"tracking.uri={redact_text(uri)} does not answer ({_brief(reason)}); {hint}")


def _brief(reason: str, limit: int = 300) -> str:
    return reason if len(reason) <= limit else reason[:limit] + "…"


def _folder(uri: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(
            f"tracking.uri={uri}: its folder cannot be made ({error.strerror}); give a writable place"
        ) from None
