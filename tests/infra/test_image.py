"""The image: its recipe is pinned, locked and unprivileged; built, it does its work on a read-only root.

Building takes minutes and 8 GB, so it waits to be asked for: ``HOLDFAST_IMAGE=build``, or the name of an image.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.tools import lacks

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "infra" / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
LINES = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M)).splitlines()
"""An instruction each."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHECKOV = "checkov==3.3.30"
ASKED = os.environ.get("HOLDFAST_IMAGE", "")
BASE = "localhost/holdfast-base:bookworm"
SMALL = "epochs=1 batch_size=16 workers=1 model.arguments.blocks=1 model.arguments.width=4 alarm.examples=8"
SMALL += " evaluation.examples=8 evaluation.attack.steps=2"
Run = Callable[[str], subprocess.CompletedProcess[str]]

built = pytest.mark.skipif(not ASKED, reason="HOLDFAST_IMAGE is not set: 'build' takes minutes, 8 GB; or name an image")
at_length = pytest.mark.timeout(1800)


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def test_checkov_finds_nothing():
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "tool", "run", "--from", CHECKOV, "checkov", "--framework", "dockerfile", "--compact", "--quiet"]
    done = subprocess.run([*command, "-o", "json", "-f", IMAGES / "Dockerfile"], capture_output=True, text=True)
    if not done.stdout.startswith("{"):
        lacks(f"{CHECKOV} cannot be run: {done.stderr[-300:]}")
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 50
    assert [(each["check_id"], each["check_name"]) for each in report["results"]["failed_checks"]] == []


def test_what_is_installed_is_pinned():
    arguments = dict(line.partition("=")[::2] for line in instructions("ARG"))
    image, _, tag = arguments["BASE"].rpartition("/")[2].partition(":")
    python = re.match(r"(\d+\.\d+\.\d+)-slim-\w+(@sha256:[0-9a-f]{64})?$", tag)
    assert image == "python"
    assert python, f"{tag} names no Python to the patch"
    assert python[1] in SpecifierSet(PROJECT["project"]["requires-python"])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", arguments[name]) for name in ("UV", "CYCLONEDX"))
    assert set(instructions("FROM")) == {"${BASE} AS tools", "tools AS wheel", "${BASE}"}
    installs = [line for line in instructions("RUN") if re.search(r"pip install|pip download", line)]
    assert len(installs) == 3
    assert all("--constraint" in line or "--no-deps" in line for line in installs)


def test_the_lock_holds_all_that_is_installed():
    (install,) = [line for line in instructions("RUN") if "--requirements" in line]
    extras = re.findall(r"--extra (\w+)", install)
    needed = [*PROJECT["project"]["dependencies"], *re.findall(r"'([^']+)'", install)]
    for extra in extras:
        needed += PROJECT["project"]["optional-dependencies"][extra]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {"train", "submit"} <= set(extras)
    assert {canonicalize_name(Requirement(each).name) for each in needed} <= locked


def test_nothing_of_the_project_stays_out():
    """A package that setuptools would install, but that the build does not see."""
    kept = {line[1:] for line in (IMAGES / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    packages = {each.rstrip("*") for each in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    copied = {each for line in instructions("COPY") for each in line.split()[:-1] if "." in each and "=" not in each}
    assert packages | {PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]} <= kept
    assert copied - {"."} <= kept
    assert all((ROOT / each).exists() for each in kept)


def test_it_runs_unprivileged_and_says_what_it_is():
    assert instructions("USER") == ["10001:10001"]
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", "".join(instructions("LABEL"))))
    assert {"source", "revision", "version", "licenses"} <= labels


ENGINE = """#!/bin/sh
[ "$1" = info ] && exit {info}
printf '%s\\n' "$@" > {arguments}
for each in "$@"; do case $each in id=*) cat "${{each##*src=}}" ;; esac; done > {secrets}
"""


@pytest.fixture
def engines(tmp_path: Path) -> dict[str, str]:
    """docker without its service, and a podman that notes what it is asked for."""
    for name, info in (("docker", 1), ("podman", 0)):
        text = ENGINE.format(info=info, arguments=tmp_path / "arguments", secrets=tmp_path / "secrets")
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if name not in ("ENGINE", "BASE", "IMAGE", "SOURCE")}
    return {**kept, "PATH": f"{tmp_path}:/usr/bin:/bin"}


def script(name: str, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([IMAGES / name, *arguments], env=environment, capture_output=True, text=True, timeout=60)


def test_the_engine_that_answers_is_taken(engines):
    assert script("engine", engines).stdout == "podman\n"
    refused = script("engine", {**engines, "ENGINE": "docker"})
    assert refused.returncode == 1
    assert "ENGINE=docker: none of docker answers" in refused.stderr


def test_secrets_reach_the_build_and_not_the_image(engines, tmp_path):
    index, authority = "https://me:hunter2@packages.example/simple?a='b'", tmp_path / "ca.pem"
    authority.write_text("an authority\n")
    remote = {"SOURCE": "https://example.org/holdfast", "BASE": "localhost/base:bookworm", "TORCH_BACKEND": "cpu"}
    given = {"UV_DEFAULT_INDEX": index, "SSL_CERT_FILE": str(authority), **remote}
    done = script("build", {**engines, **given})
    assert done.returncode == 0, done.stderr
    arguments, secrets = (tmp_path / "arguments").read_text(), (tmp_path / "secrets").read_text()
    assert "hunter2" not in arguments + done.stdout
    assert "an authority" in secrets
    exported = secrets.replace("an authority\n", "") + 'printf %s "$UV_DEFAULT_INDEX"'
    assert subprocess.run(["sh", "-c", exported], capture_output=True, text=True).stdout == index
    version = PROJECT["project"]["version"]
    assert {"BASE=localhost/base:bookworm", "TORCH_BACKEND=cpu", f"VERSION={version}"} <= set(arguments.splitlines())
    assert "SOURCE=https://example.org/holdfast" in arguments
    assert re.search(rf"^holdfast:{version}-[0-9a-z-]+-cpu$", arguments, re.M)


@pytest.mark.parametrize(
    ("arguments", "said"), [((), "usage: .*base TAG"), (("localhost/base:x",), "debootstrap: not found; apt install")]
)
def test_a_base_says_what_it_needs(engines, tmp_path, arguments, said):
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    (tmp_path / "bash").symlink_to("/bin/bash")
    refused = script("base", {**engines, "PATH": str(tmp_path)}, *arguments)
    assert refused.returncode == 1
    assert re.search(said, refused.stderr)


def make(name: str, environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run([IMAGES / name, *arguments], env=environment, capture_output=True, text=True)
    if re.search(r"apt install \w+|run this as root", done.stderr):
        lacks(done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def registry_answers() -> bool:
    try:
        urllib.request.urlopen("https://registry-1.docker.io/v2/", timeout=10)
    except urllib.error.HTTPError as answer:
        return answer.code == 401
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    if ASKED != "build":
        yield ASKED
        return
    name = f"localhost/holdfast-test:{uuid.uuid4().hex[:8]}"
    # A container in a container may not make namespaces; a build needs none.
    environment = {"BUILDAH_ISOLATION": "chroot", **os.environ, "IMAGE": name}
    engine = subprocess.run([IMAGES / "engine"], capture_output=True, text=True)
    if engine.returncode:
        lacks(engine.stderr)
    if "BASE" not in environment and not registry_answers():
        environment["BASE"] = BASE
        if subprocess.run([engine.stdout.strip(), "inspect", "--type", "image", BASE], capture_output=True).returncode:
            make("base", environment, BASE)
    make("build", environment)
    yield name
    subprocess.run([engine.stdout.strip(), "rmi", name], capture_output=True)


@pytest.fixture
def run(image: str, tmp_path: Path) -> Run:
    """A command in the image, as a pod runs it."""
    environment = {**os.environ, "VOLUME": str(tmp_path / "volume")}
    (tmp_path / "volume").mkdir()

    def run(command: str) -> subprocess.CompletedProcess[str]:
        whole = [IMAGES / "run", image, "/bin/bash", "-c", "--", command]
        done = subprocess.run(whole, env=environment, capture_output=True, text=True)
        if done.returncode == 125:
            lacks(done.stderr)
        return done

    return run


def output(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@built
@at_length
def test_it_is_nobody_and_writes_only_to_tmp(run):
    assert output(run("id -u; id -g; pwd; echo $HOME")).split() == ["10001", "10001", "/tmp", "/tmp"]
    assert output(run("awk '/CapEff|CapBnd/ {print $2}' /proc/self/status")).split() == ["0" * 16, "0" * 16]
    for place in ("/", "/opt/holdfast", "/usr/local", "/var"):
        assert "Read-only file system" in run(f"touch {place}/x").stderr
    output(run("touch /tmp/x"))


@built
@at_length
def test_doctor_finds_all_well(run):
    said = output(run("holdfast doctor"))
    assert "torch" in said
    assert "\nno " not in said


@built
@at_length
def test_a_training_runs_compiled(run, tmp_path):
    """By the C++ compiler of the image."""
    output(run(f"holdfast train recipe=digits_standard {SMALL} compile=true json=outcome.json"))
    outcome = json.loads((tmp_path / "volume" / "outcome.json").read_text())
    assert outcome["metrics"]["test_examples"] == 8
    assert outcome["cost"]["device"] == "cpu"


@built
@at_length
def test_what_kuberay_calls_is_there(run):
    """KubeRay 1.7 (ray-operator/controllers/ray/common, pod.go and job.go) calls ``ray`` and ``python`` by ``bash -c``,
    or ``bash -lc`` with ENABLE_LOGIN_SHELL, and ``wget`` where rayVersion is not set."""
    called = "for each in ray python holdfast wget grep sleep; do command -v $each || exit 1; done"
    assert output(run(called)) == output(run(f"bash -lc {shlex.quote(called)}"))
    assert "ray, version 2." in output(run("ray --version"))
    assert run("ray health-check --address 127.0.0.1:6379").returncode == 1
    output(run("python -c 'import urllib.request, kubernetes, psycopg; psycopg.connect'"))


@built
@at_length
def test_bytecode_is_compiled(run):
    """Or each start would compile it anew, as a read-only root keeps none."""
    code = "import ray, mlflow, k8s, pipelines.cli, trainers.models"
    said = run(f"python -v -c {shlex.quote(code)}")
    output(said)
    assert len(re.findall(r"^# /opt/\S+ matches /opt/", said.stderr, re.M)) > 500
    assert "bytecode is stale" not in said.stderr
    assert re.findall(r"^# code object from /opt/.*", said.stderr, re.M) == [], "compiled at the start"


@built
@at_length
def test_nothing_of_the_build_stays(run):
    places = "/src /tools /wheel /opt/cache /root/.cache /run/secrets/* /var/lib/apt/lists/*"
    assert output(run(f"ls -d {places} 2>/dev/null; true")) == ""
    assert run("command -v uv").returncode == 1


@built
@at_length
def test_the_bill_is_what_is_installed_and_what_is_locked(run):
    bill = json.loads(output(run("cat /opt/holdfast/sbom.cdx.json")))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    components = bill["components"]
    assert len({each["bom-ref"] for each in components}) == len(components)
    kinds = {kind: [c for c in components if c["purl"].startswith(f"pkg:{kind}/")] for kind in ("pypi", "deb")}

    listing = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = output(run(f"python -c {shlex.quote(listing)}")).splitlines()
    installed = {canonicalize_name(name): version for name, version in map(str.split, lines)}
    assert installed.pop("holdfast") == bill["metadata"]["component"]["version"]
    assert installed == {canonicalize_name(each["name"]): each["version"] for each in kinds["pypi"]}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        locked = Requirement(line)
        if locked.marker is None or locked.marker.evaluate():
            version = installed.pop(canonicalize_name(locked.name), None)
            assert version is None or locked.specifier.contains(version)
    assert installed == {}, "not in the lock"

    packages = output(run("dpkg-query --show --showformat='${Package} ${Version}\\n'")).splitlines()
    assert sorted(f"{each['name']} {each['version']}" for each in kinds["deb"]) == sorted(packages)


@built
@at_length
def test_labels_say_where_it_comes_from(image):
    engine = subprocess.run([IMAGES / "engine"], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run([engine, "inspect", "--type", "image", image], capture_output=True, text=True, check=True)
    labels = dict(re.findall(r'"org\.opencontainers\.image\.(\w+)": "([^"]*)"', done.stdout))
    assert re.search(r'"User": "10001:10001"', done.stdout, re.I)
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == PROJECT["project"]["version"]
    assert labels["source"]
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])
