"""A job's lease goes with its RayJob: made, adopted or made anew when the job is submitted."""

from datetime import datetime

from k8s import record
from k8s.client import Api, Object
from k8s.errors import Misuse, Refusal, Unreachable


def ensure(api: Api, rayjob: Object) -> None:
    """One that this very RayJob owns.  What is left of an earlier one of its name holds that one's end, and goes."""
    name, uid = rayjob["metadata"]["name"], rayjob["metadata"]["uid"]
    new = record.lease(name, api.namespace, {**rayjob, "apiVersion": "ray.io/v1", "kind": "RayJob"})
    for _ in range(5):  # whoever runs the command may be at it too
        try:
            there = api.get("Lease", name)
            if there is None:
                api.create(new)
                return
            owners = there["metadata"].get("ownerReferences") or []
            if any(owner["uid"] == uid for owner in owners):
                return
            if not owners and _made(there) >= _made(rayjob):  # the command was quicker than its submitter
                owned = {**there["metadata"], "ownerReferences": new["metadata"]["ownerReferences"]}
                api.replace({**there, "kind": "Lease", "metadata": owned})
                return
            api.delete("Lease", name, there["metadata"]["uid"])
        except Refusal as error:
            if error.status not in (404, 409):
                raise Misuse(f"namespace={api.namespace}: the job's lease cannot be made ({error})") from error
    raise Unreachable(f"the lease of {name} is being written by others")


def drop(api: Api, name: str) -> None:
    """Now: the garbage collector takes its time, and knows nothing of one that nobody owns."""
    there = api.get("Lease", name)
    if there is not None:
        api.delete("Lease", name, there["metadata"]["uid"])


def _made(item: Object) -> datetime:
    return datetime.fromisoformat(item["metadata"]["creationTimestamp"])
