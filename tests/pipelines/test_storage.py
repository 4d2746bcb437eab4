import io
import os
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from pipelines import storage
from pipelines.errors import Failure, Misuse
from pipelines.storage import connection, s3
from trainers.data.files import LocalFiles

CONTENT = bytes(range(256)) * 12000  # 3 MB: three buffers


pytestmark = pytest.mark.usefixtures("credentials")


def put(bucket: str, key: str, body: bytes = b"x") -> None:
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def test_a_path_chooses_its_files(tmp_path):
    assert storage.files(str(tmp_path)) == LocalFiles()
    assert storage.files("s3://b/p") == storage.S3Files()
    with pytest.raises(Misuse, match="gs://b/p: only folders and s3"):
        storage.files("gs://b/p")
    with pytest.raises(Misuse, match="names no bucket"):
        storage.S3Files().list("s3://")


def test_listing_answers_as_local_files_do(bucket, tmp_path):
    names = ["set/b/2.jpg", "set/b/10.jpg", "set/a.jpg", "set/.hidden/c", "set/b/.DS_Store", "set2/other", "top"]
    for name in names:
        put(bucket, name)
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    put(bucket, "set/empty/", b"")
    remote, local = storage.S3Files(), LocalFiles()
    for prefix in ("set", "set/", "set/b", "top", "absent", "set/a.jpg"):
        theirs = [p.removeprefix(f"{tmp_path}/") for p in local.list(f"{tmp_path}/{prefix}")]
        assert [p.removeprefix(f"s3://{bucket}/") for p in remote.list(f"s3://{bucket}/{prefix}")] == theirs, prefix
        assert remote.exists(f"s3://{bucket}/{prefix}") == local.exists(f"{tmp_path}/{prefix}"), prefix
    assert len(remote.list(f"s3://{bucket}")) == 5


def test_an_inventory_tells_what_was_written_anew_and_opens_nothing(bucket, tmp_path, monkeypatch):
    for root in (f"s3://{bucket}/set", str(tmp_path)):
        for name, content in (("a.jpg", b"one"), ("b/c.jpg", b"four"), (".hidden/d", b"x"), ("b/.DS_Store", b"x")):
            storage.write(f"{root}/{name}", content)
        with monkeypatch.context() as patch:
            for kind in (storage.S3Files, LocalFiles):
                patch.setattr(kind, "open", lambda self, path: pytest.fail(f"{path} was opened"))
            first = storage.inventory(root)
            assert {path: entry.size for path, entry in first.items()} == {f"{root}/a.jpg": 3, f"{root}/b/c.jpg": 4}
            assert list(first) == storage.files(root).list(root)
            assert storage.inventory(root) == first
        storage.write(f"{root}/a.jpg", b"two")
        if root == str(tmp_path):  # two writes may fall into one tick of the file system's clock
            os.utime(tmp_path / "a.jpg", ns=(0, int(first[f"{root}/a.jpg"].stamp) + 1))
        second = storage.inventory(root)
        assert {path for path in second if second[path] != first[path]} == {f"{root}/a.jpg"}
        assert storage.inventory(f"{root}/absent") == {}
        assert list(storage.inventory(f"{root}/a.jpg").values()) == [second[f"{root}/a.jpg"]]
    with pytest.raises(storage.MissingObject, match="bucket does not exist"):
        storage.inventory("s3://no-such-bucket-here/a")


def test_more_objects_than_a_page_are_all_listed(bucket):
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    for index in range(1100):  # straight into the server of this process: a request each would take seconds
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, f"p/{index}", b"")
    assert boto3.client("s3").list_objects_v2(Bucket=bucket)["IsTruncated"]
    assert len(storage.S3Files().list(f"s3://{bucket}/p")) == 1100


def test_an_object_reads_as_a_seekable_file(bucket):
    put(bucket, "data.bin", CONTENT)
    path = f"s3://{bucket}/data.bin"
    files = pickle.loads(pickle.dumps(storage.S3Files()))
    assert files.size(path) == len(CONTENT)
    with files.open(path) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read(10) == CONTENT[:10]
        assert file.seek(-5, io.SEEK_END) == len(CONTENT) - 5
        assert file.read() == CONTENT[-5:]
        assert file.read(1) == b""
        assert file.seek(2_000_000) == 2_000_000
        assert file.read(1_500_000) == CONTENT[2_000_000:]
        file.seek(1)
        assert file.read() == CONTENT[1:]
        assert file.seek(len(CONTENT) + 9) == len(CONTENT) + 9
        assert file.read(3) == b""
    put(bucket, "empty", b"")
    assert files.open(f"s3://{bucket}/empty").read() == b""


def test_few_requests_are_made(bucket, monkeypatch):
    put(bucket, "data.bin", CONTENT)
    ranges: list[str] = []
    get = s3._Object._get
    monkeypatch.setattr(s3._Object, "_get", lambda self, a, b: ranges.append(f"{a}-{b}") or get(self, a, b))
    with storage.S3Files().open(f"s3://{bucket}/data.bin") as file:
        while file.read(10_000):
            pass
        assert len(ranges) == 3
        file.seek(0)
        file.read()
    assert len(ranges) == 4


def test_an_object_replaced_while_read_is_an_error_not_a_mixture(bucket):
    put(bucket, "data.bin", CONTENT)
    with storage.S3Files().open(f"s3://{bucket}/data.bin") as file:
        file.read(10)
        put(bucket, "data.bin", CONTENT[::-1])
        file.seek(2_500_000)
        with pytest.raises(Failure, match="was replaced while it was being read"):
            file.read(10)


def test_a_folder_goes_there_and_back(bucket, tmp_path):
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "from" / "a.json").write_text("{}")
    (tmp_path / "from" / "deep" / "b.bin").write_bytes(CONTENT)
    for uri in (f"s3://{bucket}/model/", f"s3://{bucket}", str(tmp_path / "copy")):
        storage.upload(tmp_path / "from", uri)
        back = tmp_path / f"back{len(uri)}"
        storage.download(uri, back)
        assert (back / "a.json").read_text() == "{}"
        assert (back / "deep" / "b.bin").read_bytes() == CONTENT
    storage.download(f"s3://{bucket}/model/a.json", tmp_path / "one")
    assert [p.name for p in (tmp_path / "one").iterdir()] == ["a.json"]
    with pytest.raises(FileNotFoundError, match="there is no such object"):
        storage.download(f"s3://{bucket}/absent", tmp_path / "nothing")


def test_a_name_that_climbs_out_is_refused(bucket, tmp_path):
    put(bucket, "model/../../evil")
    with pytest.raises(Failure, match=r"leads out of|there is no such object"):
        storage.download(f"s3://{bucket}/model", tmp_path / "in" / "side")
    assert not (tmp_path / "evil").exists()


def test_what_is_not_there_is_named(bucket):
    files = storage.S3Files()
    with pytest.raises(FileNotFoundError, match=rf"s3://{bucket}/absent: there is no such object"):
        files.open(f"s3://{bucket}/absent")
    with pytest.raises(storage.MissingObject, match="no such object"):
        files.size(f"s3://{bucket}/absent")
    for ask in (files.list, files.exists, files.open):
        with pytest.raises(storage.MissingObject, match="s3://no-such-bucket-here/a: the bucket does not exist"):
            ask("s3://no-such-bucket-here/a")
    with pytest.raises(storage.MissingObject, match="bucket does not exist"):
        storage.upload(Path(__file__).parent, "s3://no-such-bucket-here/a")


class Refusing(BaseHTTPRequestHandler):
    """An S3 that answers every request with the status and code in its bucket's name."""

    def do_GET(self) -> None:
        status, code = self.path.strip("/").split("/")[0].split("?")[0].split(".")
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Breaking(Refusing):
    """An S3 of one 4-byte object that breaks off its first three answers."""

    answers = 0

    def do_GET(self) -> None:
        type(self).answers += self.command == "GET"
        self.send_response(206 if self.command == "GET" else 200)
        self.send_header("Content-Length", "4")
        self.send_header("ETag", '"e"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"da" if self.answers <= 3 else b"data")
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def serve(monkeypatch) -> Iterator[object]:
    servers = []

    def start(handler: type[BaseHTTPRequestHandler]) -> None:
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ("403.AccessDenied", "access is denied; give these credentials"),
        ("400.ExpiredToken", "the credentials have expired; renew"),
        ("403.InvalidAccessKeyId", "access key is not known here"),
        ("403.SignatureDoesNotMatch", "secret key is wrong"),
    ],
)
def test_a_refusal_says_why_and_what_to_do(serve, answer, remedy, tmp_path):
    serve(Refusing)
    (tmp_path / "a").touch()
    files, path = storage.S3Files(), f"s3://{answer}/key"
    for ask in (files.list, files.exists, files.open, files.size, lambda path: storage.upload(tmp_path, path)):
        with pytest.raises(Failure, match=remedy) as caught:
            ask(path)
        assert path in str(caught.value)
        assert not isinstance(caught.value, OSError)
        assert "hunter2" not in str(caught.value)


def test_a_connection_that_breaks_in_a_body_is_tried_again(serve):
    serve(Breaking)
    assert storage.S3Files().open("s3://b/k").read() == b"data"
    assert Breaking.answers == 4


def test_no_store_and_no_credentials_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(connection, "_client_of", connection._client_of.__wrapped__)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Failure, match="no credentials; set AWS_PROFILE"):
        storage.S3Files().list("s3://b/p")


def test_ray_gets_a_file_system_for_an_endpoint_of_its_own(bucket, moto_endpoint, monkeypatch, tmp_path):
    system, path = storage.ray_filesystem(f"s3://{bucket}/runs/")
    assert path == f"{bucket}/runs"
    with pickle.loads(pickle.dumps(system)).open_output_stream(f"{path}/a.txt") as stream:
        stream.write(b"hello")
    assert storage.S3Files().open(f"s3://{bucket}/runs/a.txt").read() == b"hello"
    assert b"hunter2" not in pickle.dumps(system)

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert storage.ray_filesystem(f"s3://{bucket}/runs") == (None, f"s3://{bucket}/runs")
    monkeypatch.chdir(tmp_path)
    assert storage.ray_filesystem("runs") == (None, os.path.join(tmp_path, "runs"))
