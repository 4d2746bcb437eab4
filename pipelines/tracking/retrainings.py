"""A retraining in MLflow: a run above that of its training, with its reasons, its data and what came of it."""

from collections.abc import Mapping
from typing import Any

from pipelines.tracking import runs, server, versions

FOLDER = "retraining"


def log(uri: str, run_id: str, found: Mapping[str, Any], manifest: str, text: str) -> None:
    """Errors: ``Failure`` if the server does not take it."""
    with versions.told(uri, "take the retraining"):
        client = server.client(uri)
        client.log_text(run_id, manifest, f"{FOLDER}/manifest.json")
        client.log_dict(run_id, dict(found), f"{FOLDER}/retraining.json")
        client.set_tag(run_id, "retraining.outcome", found["outcome"])
        runs.describe(uri, run_id, text)
