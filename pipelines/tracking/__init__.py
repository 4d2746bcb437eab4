"""The only door to MLflow.

``runs`` opens and closes the one run of a training, ``journal`` brings its metrics there whatever happens to the
server, ``registry`` makes the trained model a version that anybody can load.  Nothing here imports MLflow until it
is used: that import takes seconds.
"""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # its own 7 take minutes, in silence
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
