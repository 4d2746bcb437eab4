"""A search in MLflow: its front, tables and numbers in its own run, above those of its trials."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.tracking import runs, server, versions

FOLDER = "search"


def log(uri: str, run_id: str, found: Mapping[str, Any], folder: Path, text: str) -> None:
    """Errors: ``Failure`` if the server does not take it."""
    from mlflow.entities import Metric

    best = found["trials"][0]
    won = next(each for each in found["finalists"] if each["name"] == found["winner"])
    numbers = {
        "search/best_clean_accuracy": best["clean"],
        "search/best_robust_accuracy": best["robust"],
        "search/trials": len(found["trials"]),
        "search/epochs": found["epochs"],
        "search/winner_clean_accuracy": won["clean"][0],
        "search/winner_robust_accuracy": won["robust"][0],
    }
    numbers |= {f"search/cost/{key}": spent for key, spent in found["cost"].items()}
    numbers |= {f"search/importance/{key}": share for key, share in found["importance"].items()}
    with versions.told(uri, "take the search"):
        client = server.client(uri)
        client.log_artifacts(run_id, str(folder), FOLDER)
        client.log_dict(run_id, dict(found), f"{FOLDER}/search.json")
        client.log_batch(run_id, metrics=[Metric(key, float(value), 0, 0) for key, value in numbers.items()])
        client.set_tag(run_id, "search.winner", found["winner"])
    runs.describe(uri, run_id, text)
