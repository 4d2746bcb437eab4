"""What checkov finds in infra/ and nobody has justified.  python benchmarks/infra.py [--quick] [--json FILE]

``checkov_findings_unjustified``: failed checks over Terraform's modules, its example and the Dockerfiles, and
exceptions (``checkov:skip=ID:reason``) without a reason.  ``checkov_exceptions``: those with one.  checkov pins
versions of packages that we use too, so it runs in an environment of its own, made by uv.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

CHECKOV = "checkov==3.3.30"
INFRA = Path(__file__).parents[1] / "infra"
FRAMEWORKS = ("terraform", "dockerfile")
READING = "value: findings; n: checks made; goal: what it should be."
WAIT = 600
"""Seconds; the first run downloads checkov and what it needs, half a minute on a fast line."""


@dataclass(frozen=True)
class Finding:
    check: str
    resource: str
    reason: str
    """why it is no fault; empty for a failed check"""


@dataclass(frozen=True)
class Scan:
    passed: int
    failed: list[Finding]
    excepted: list[Finding]

    @property
    def unjustified(self) -> list[Finding]:
        return self.failed + [each for each in self.excepted if not each.reason]


def main() -> None:
    from benchmarks.report import Rows, parser

    args = parser(__doc__, quick="the same: it is quick").parse_args()
    rows = Rows("Infrastructure, as checkov sees it", reading=READING)
    found = scan(INFRA, FRAMEWORKS)
    for each in found.unjustified:
        print(f"{each.check} {each.resource}")
    checks = found.passed + len(found.failed) + len(found.excepted)
    where = f"{', '.join(FRAMEWORKS)}; {CHECKOV}"
    rows.add("checkov_findings_unjustified", value=len(found.unjustified), n=checks, goal="0", note=where)
    rows.add("checkov_exceptions", value=len(found.excepted), n=checks, note="each with its reason beside the resource")
    rows.close(args.json)


def scan(folder: Path, frameworks: tuple[str, ...]) -> Scan:
    """Errors: ``RuntimeError`` if checkov cannot be had, or cannot read a file."""
    command = [_uv(), "tool", "run", "--from", CHECKOV, "checkov", "--directory", str(folder)]
    command += ["--framework", *frameworks, "--output", "json", "--compact", "--skip-download"]
    environment = {**os.environ, "LOG_LEVEL": "ERROR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT)
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"{CHECKOV} said no JSON (exit code {done.returncode}): {done.stderr[-800:]}") from error
    reports: list[dict[str, Any]] = answer if isinstance(answer, list) else [answer]
    reports = [each for each in reports if "results" in each]  # a framework that found no file has none
    if not reports:
        raise RuntimeError(f"{CHECKOV} found nothing to check in {folder}")
    if unread := [path for each in reports for path in each["results"]["parsing_errors"]]:
        raise RuntimeError(f"{CHECKOV} cannot read {', '.join(unread)}")
    return Scan(
        passed=sum(each["summary"]["passed"] for each in reports),
        failed=_findings(reports, "failed_checks"),
        excepted=_findings(reports, "skipped_checks"),
    )


def _findings(reports: list[dict[str, Any]], kind: str) -> list[Finding]:
    seen = {
        Finding(check["check_id"], check["resource"], (check["check_result"].get("suppress_comment") or "").strip())
        for report in reports
        for check in report["results"][kind]
    }
    return sorted(seen, key=lambda each: (each.check, each.resource))


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        raise RuntimeError("uv is missing: make install, or pip install uv")
    return found


if __name__ == "__main__":
    main()
