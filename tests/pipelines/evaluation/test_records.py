"""What became of every example: there and back, in groups, whole or not at all."""

import gc
import json
import weakref
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import Misuse
from pipelines.evaluation import records
from pipelines.evaluation.records import KEY, SCHEMA, Writer, about, read

EVALUATION = {
    "name": "digits-1-3f2a9c0d11",
    "model": {"source": "https://me:secret@host/m", "digest": "ab" * 32, "architecture": "net"},
    "data": {"name": "digits", "split": "test", "digest": "cd" * 32, "n": 3, "classes": ["zero", "one"]},
    "attack": {"name": "AutoAttack standard", "version": "standard", "mode": "fast", "seed": 7, "batch_size": 64},
}
ABOUT = about(EVALUATION)


def row(i: int, attack: str = "", beyond: str | None = None, **other: object) -> dict:
    base = {"id": i, "name": f"test row {i}", "label": i % 2, "clean": i % 2, "norm": "Linf", "eps": 8 / 255}
    base |= {
        "robust": attack == "",
        "attacked": (i + bool(attack)) % 2,
        "attack": attack,
        "distance": 0.03 if attack else 0.0,
    }
    if beyond is not None:
        base |= {"attack_beyond": beyond, "robust_beyond": attack == beyond == ""}
    return base | other


def test_what_is_written_is_read(tmp_path):
    rows = [row(-(2**62)), row(5, "apgd-ce", ""), row(2, "", "malt"), row(3, "clean", "", name="ümlaut [x].png")]
    with Writer(tmp_path / "deep" / "records.parquet", ABOUT) as out:
        out.write(rows)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["records.parquet"]
    found = read(tmp_path / "deep")
    assert found.about == ABOUT
    assert ABOUT["attack"]["seed"] == 7
    assert "secret" not in json.dumps(ABOUT)
    assert len(found) == 4
    for name in SCHEMA.names:
        assert found.columns[name].tolist() == [r.get(name) for r in rows], name
    assert found.columns["id"].dtype == np.int64
    assert found.columns["robust"].dtype == bool
    assert list(found.threats) == [("Linf", 8 / 255)]
    assert found.columns["id"][found.threats["Linf", 8 / 255]].tolist() == [-(2**62), 2, 3, 5]


def test_a_file_a_folder_and_another_name_are_the_same_records(tmp_path, monkeypatch):
    with Writer(tmp_path / "records.parquet", ABOUT) as out:
        out.write([row(1)])
    (tmp_path / "mine").write_bytes((tmp_path / "records.parquet").read_bytes())
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, f"{tmp_path}/", tmp_path / "records.parquet", "records.parquet", ".", "mine"):
        assert read(place).columns["id"].tolist() == [1]


class Row(dict):
    """A row that a weak reference can watch."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_rows_are_written_in_groups_and_never_all_held(tmp_path):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[Row]:
        nonlocal most
        for i in range(1000):
            made = Row(row(i))
            alive.add(made)
            most = max(most, len(alive))
            yield made

    with Writer(tmp_path / "r.parquet", ABOUT, group=64) as out:
        out.write(stream())
    gc.collect()
    assert 64 <= most <= 66
    file = pq.ParquetFile(tmp_path / "r.parquet")
    assert file.metadata.num_row_groups == 16
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert read(tmp_path / "r.parquet").columns["id"].tolist() == list(range(1000))


def test_an_evaluation_that_breaks_off_leaves_what_was_there(tmp_path):
    path = tmp_path / "records.parquet"
    with Writer(path, ABOUT) as out:
        out.write([row(1)])

    def breaking() -> Iterator[dict]:
        yield from (row(2), row(3))
        assert read(path).columns["id"].tolist() == [1]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Writer(path, ABOUT, group=1) as out:
        out.write(breaking())
    assert read(path).columns["id"].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["records.parquet"]


def test_no_examples_are_a_file_without_rows(tmp_path):
    with Writer(tmp_path / "records.parquet", ABOUT):
        pass
    assert len(read(tmp_path)) == 0
    assert read(tmp_path).threats == {}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"label": None}, "example 4 has no label"),
        ({"colour": 3}, "has colour: there is no such column"),
        ({"robust": False}, "robust=False"),
        ({"robust_beyond": True}, "robust_beyond=True"),
        ({"attack_beyond": "malt", "robust_beyond": True}, "attack_beyond='malt'"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(tmp_path, wrong, words):
    with pytest.raises(ValueError, match=words), Writer(tmp_path / "r.parquet", ABOUT) as out:
        out.write([row(4, **wrong)])
    assert list(tmp_path.iterdir()) == []


def test_an_example_that_is_there_twice_is_refused(tmp_path):
    with Writer(tmp_path / "records.parquet", ABOUT) as out:
        out.write([row(1), row(1, norm="L2"), row(2), row(1)])
    with pytest.raises(Misuse, match="example 1 is there twice for Linf"):
        _ = read(tmp_path).threats


def test_what_is_not_there_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "absent", tmp_path / "absent.parquet"):
        with pytest.raises(Misuse, match=r"is not there: give the folder that `holdfast evaluate` left"):
            read(place)


def test_what_is_not_whole_is_named(tmp_path):
    with Writer(tmp_path / "records.parquet", ABOUT) as out:
        out.write(row(i) for i in range(300))
    whole = (tmp_path / "records.parquet").read_bytes()
    for part in (b"", whole[:2], whole[: len(whole) // 2], whole[:-3], b"not parquet at all, but long enough"):
        (tmp_path / "broken.parquet").write_bytes(part)
        with pytest.raises(Misuse, match=r"broken.parquet cannot be read as Parquet .*evaluate again"):
            read(tmp_path / "broken.parquet")


def test_other_tables_are_no_records(tmp_path):
    table = pa.Table.from_pylist([row(1)], schema=SCHEMA)
    pq.write_table(table, tmp_path / "a.parquet")
    pq.write_table(table.drop_columns(["attack", "eps"]).replace_schema_metadata({KEY: b"{}"}), tmp_path / "b.parquet")
    text = table.set_column(0, "id", pa.array(["1"])).replace_schema_metadata({KEY: b"{}"})
    pq.write_table(text, tmp_path / "c.parquet")
    pq.write_table(table.replace_schema_metadata({KEY: b"{"}), tmp_path / "d.parquet")
    for name, words in (
        ("a", "metadata holdfast"),
        ("b", "columns eps, attack"),
        ("c", "columns id"),
        ("d", "d.parquet"),
    ):
        with pytest.raises(Misuse, match=words):
            read(tmp_path / f"{name}.parquet")


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / records.NAME).mkdir()
    with pytest.raises(Misuse, match="cannot be read as Parquet"):
        read(tmp_path)
