"""Sources read only through ``files``, and what they say of an example does not depend on where the set lies."""

import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from trainers.data.folder import Folder
from trainers.data.parquet import Parquet
from trainers.data.shards import Shards
from trainers.data.streaming import Streaming

ROOT = "s3://bucket/some/prefix"


@dataclass(frozen=True)
class Bucket:
    """A folder behind URIs, as an object store shows it: whole objects, no folders."""

    root: Path

    def _local(self, uri: str) -> Path:
        assert uri.startswith(ROOT)
        return self.root / uri[len(ROOT) + 1 :]

    def list(self, prefix: str) -> list[str]:
        assert prefix.rstrip("/") == ROOT
        return sorted(f"{ROOT}/{p.relative_to(self.root)}" for p in self.root.rglob("*") if p.is_file())

    def open(self, path: str) -> io.BytesIO:
        return io.BytesIO(self._local(path).read_bytes())

    def size(self, path: str) -> int:
        return self._local(path).stat().st_size

    def exists(self, path: str) -> bool:
        return self._local(path).exists()


@pytest.fixture(params=["parquet", "tars", "folder"])
def layout(request):
    source = {"parquet": Parquet, "tars": Shards, "folder": Folder}[request.param]
    return source, request.getfixturevalue(request.param)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_bucket_gives_what_the_folder_gives(layout, slash):
    source, path = layout
    here, there = source(str(path)).split("train"), source(ROOT + slash, files=Bucket(path)).split("train")
    assert here.ids.equal(there.ids)
    assert here.labels.equal(there.labels)
    assert here.digest == there.digest
    assert [here.name(i) for i in range(len(here))] == [there.name(i) for i in range(len(there))]
    assert all(here.image(i).tobytes() == there.image(i).tobytes() for i in range(len(here)))


def test_a_relative_path_gives_the_same_ids(layout, monkeypatch):
    source, path = layout
    monkeypatch.chdir(path.parent)
    for relative in (path.name, f"./{path.name}/"):
        assert source(relative).split("train").ids.equal(source(str(path)).split("train").ids)
        assert source(relative).classes == source(str(path)).classes


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_loader_processes_open_files_of_their_own(layout, start_method):
    source, path = layout
    if start_method == "spawn" and source is not Shards:
        pytest.skip("a process that starts anew imports torch, which is slow: once is enough")
    settings = {"batch_size": 8, "input_size": (3, 10, 10), "start_method": start_method}
    data = Streaming(source(ROOT, files=Bucket(path)), loaders=1, **settings)
    data._roster.members["train"][0].image(0)
    expected = list(Streaming(source(str(path)), loaders=0, **settings).train(0))
    for got, want in zip(data.train(0), expected, strict=True):
        assert all(a.equal(b) for a, b in zip(got, want, strict=True))
    data.close()
