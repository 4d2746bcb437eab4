"""An evaluation in MLflow: its report and numbers in the model's run, linked from the model's version."""

import time
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import Failure, first_line
from pipelines.redact import redact_text
from pipelines.tracking import params, server

FOLDER = "evaluation"
"""Of a run's artifacts."""


def log(
    uri: str,
    run_id: str,
    name: str,
    folder: Path,
    metrics: Mapping[str, float],
    version: tuple[str, int] | None,
    tags: Mapping[str, str],
) -> str:
    """Every file below ``folder`` as an artifact of the run, ``metrics`` as ``evaluation/...``, and ``tags`` on the
    model's ``version``, with the report's address; that address.

    Errors: ``Failure`` if the server does not take them.
    """
    from mlflow.entities import Metric

    client = server.client(uri)
    place = f"{FOLDER}/{name}"
    address = f"runs:/{run_id}/{place}/report.html"
    try:
        client.log_artifacts(run_id, str(folder), place)
        now = int(time.time() * 1000)
        points = [Metric(params.fit_name(key), float(value), now, 0) for key, value in metrics.items()]
        client.log_batch(run_id, metrics=points)
        if version is not None:
            for key, value in {**tags, "evaluation.report": address}.items():
                client.set_model_version_tag(version[0], str(version[1]), params.fit_name(key), redact_text(value))
    except Exception as error:
        raise Failure(
            f"tracking.uri={redact_text(uri)} did not take the evaluation ({redact_text(first_line(error))}); it is "
            "kept in storage, and the same command sends it again"
        ) from error
    return address
