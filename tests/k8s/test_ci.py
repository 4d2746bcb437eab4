"""The examples for CI: their scripts, run as they stand, and the comment that they leave."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml

from pipelines.promotion.gate import Clause, Decision
from pipelines.promotion.shown import title
from tests.pipelines.guides import ROOT
from tests.tools import lacks

EXAMPLES = ROOT / "docs" / "ci"
TABLE = "digits/2: refused, against the champion, digits/1\nNO  clean  …\n"
SAID = f"Running entrypoint for job promote-17: …\n{TABLE}"


@pytest.mark.parametrize("name", ["github.yaml", "gitlab.yaml"])
def test_the_script_of_a_ci_job_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    """In a shell as CI has it; `holdfast` is one that writes down how it was called, and is refused by the gate."""
    content = yaml.safe_load((ROOT / "docs" / "ci" / name).read_text())
    if name == "github.yaml":
        steps = content["jobs"]["train"]["steps"]
        script = [step["run"] for step in steps if step.get("run", "").startswith("holdfast")]
        env = content["jobs"]["train"]["env"]
    else:
        script, env = content["robust model"]["script"], content["robust model"]["variables"]
    (tmp_path / "holdfast").write_text(
        f"#!{sys.executable}\nimport json, sys\nopen('calls', 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
        "print('the table')\nsys.exit(3 if 'promote' in sys.argv else 0)\n"
    )
    (tmp_path / "holdfast").chmod(0o755)
    numbers = {
        "GITHUB_RUN_ID": "17",
        "GITHUB_RUN_ATTEMPT": "2",
        "CI_JOB_ID": "17",
        "IMAGE": "a/b:1",
        "PATH": f"{tmp_path}:/usr/bin:/bin",
    }
    done = subprocess.run(["bash", "-e", "-c", "\n".join(script)], cwd=tmp_path, env={**env, **numbers}, check=False)
    assert done.returncode == 3, "the job fails as the gate refused"
    assert (tmp_path / "gate.txt").read_text() == "the table\n"
    train, promote = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    number = "17-2" if name == "github.yaml" else "17"
    shared = ["submit", "cluster=cluster.yaml", "image=a/b:1"]
    recipes = ["--recipes", "/opt/recipes"]
    assert train == [*shared, "--", "train", *recipes, "recipe=digits_gradnorm", "register_as=digits"]
    assert promote == [*shared, f"name=promote-{number}", "--", "promote", *recipes, "name=digits"]


def test_gitlabs_comment_holds_the_gates_table(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Notes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            asked.append((self.path, parse_qs(body)["body"][0]))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    (tmp_path / "gate.txt").write_text(SAID)
    with HTTPServer(("127.0.0.1", 0), Notes) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "5", "HOLDFAST_COMMENT_TOKEN": "t"}
        env |= {"CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4", "PATH": os.environ["PATH"]}
        script = yaml.safe_load((EXAMPLES / "gitlab.yaml").read_text())["robust model"]["after_script"]
        subprocess.run(["bash", "-e", "-c", "\n".join(script)], cwd=tmp_path, env=env, check=True)
        server.shutdown()
    assert asked == [("/api/v4/projects/3/merge_requests/5/notes", f"```\n{TABLE}\n```")]


NODE = """
const context = {repo: {owner: "us", repo: "shop"}, issue: {number: 5}}
const github = {rest: {issues: {createComment: async asked => console.log(JSON.stringify(asked))}}}
const run = async () => {
%s
}
run()
"""


def test_githubs_comment_holds_the_gates_table(tmp_path: Path) -> None:
    node = shutil.which("node") or lacks("no node on PATH: apt install nodejs")
    steps = yaml.safe_load((EXAMPLES / "github.yaml").read_text())["jobs"]["train"]["steps"]
    (script,) = [step["with"]["script"] for step in steps if "script" in step.get("with", {})]
    (tmp_path / "comment.js").write_text(NODE % script)
    command = [node, "comment.js"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout == b"", "no table, no comment"
    (tmp_path / "gate.txt").write_text(SAID)
    said = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
    assert json.loads(said) == {"owner": "us", "repo": "shop", "issue_number": 5, "body": f"```\n{TABLE}\n```"}


@pytest.mark.parametrize(("passed", "champion"), [(True, None), (False, "digits/1")])
def test_a_table_begins_as_the_comments_expect(passed: bool, champion: str | None) -> None:
    decision = Decision("digits/2", champion, (Clause("clean", "any", "0.9", passed),))
    words = r"^\S+: (passed|refused), "
    assert re.match(words, title(decision))
    assert all(words in (EXAMPLES / name).read_text() for name in ("github.yaml", "gitlab.yaml"))
