"""What became of every example: a Parquet file in long format, one row an example and threat, written as it comes."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import Misuse, first_line
from pipelines.redact import redact_text
from pipelines.storage import files

NAME = "records.parquet"
KEY = b"holdfast"
"""Of the file's metadata: JSON that says of which evaluation these are (``about``)."""
GROUP = 16_384
"""Rows held before they are written: a megabyte or two."""
WRONG, WITHSTOOD = "clean", ""
"""In the columns ``attack`` and ``attack_beyond``, where no attack's name stands."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("clean", pa.int64(), nullable=False),
        pa.field("norm", pa.string(), nullable=False),
        pa.field("eps", pa.float64(), nullable=False),
        pa.field("robust", pa.bool_(), nullable=False),
        pa.field("attacked", pa.int64(), nullable=False),
        pa.field("attack", pa.string(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("robust_beyond", pa.bool_()),
        pa.field("attack_beyond", pa.string()),
    ]
)
"""``id``: of the example, the same in every evaluation of one data set; ``name``: what a person would look for;
``clean``: the prediction on the image as it is; ``robust``: right, and withstood AutoAttack at ``norm`` and ``eps``;
``attacked``: the prediction at the adversarial example, ``clean`` where there is none; ``attack``: the one that fooled
it, "clean" where it is wrong as it is, "" where it withstood; ``distance``: of the adversarial example, 0 without one;
``robust_beyond``: whether it withstood the attacks beyond AutoAttack too; ``attack_beyond``: the one of these that
fooled it, "" where none did or none was needed; both null where none was run."""


def about(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What a records file says of its evaluation, from the keys ``name``, ``model``, ``data`` and ``attack``."""
    model, data, attack = evaluation["model"], evaluation["data"], evaluation["attack"]
    return {
        "name": evaluation["name"],
        "model": {"source": redact_text(str(model["source"])), "digest": model["digest"]},
        "data": {key: data[key] for key in ("name", "split", "digest", "classes")},
        "attack": {key: attack[key] for key in ("name", "version", "mode", "seed", "batch_size")},
    }


class Writer:
    """Rows to ``path``, a row group of ``group`` at a time: no more are ever held.

    The file appears whole when the block ends, and not at all when an exception ends it, or a kill: until then it is
    ``path.partial``.  ``about``: see ``about``.  Errors: ``ValueError`` for a row that does not fit the schema.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any], group: int = GROUP) -> None:
        self._path, self._group = Path(path), group
        self._partial = Path(f"{path}.partial")
        self._rows: list[Mapping[str, Any]] = []
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = SCHEMA.with_metadata({KEY: json.dumps(about).encode()})
        self._out = pq.ParquetWriter(self._partial, self._schema, compression="zstd")

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows as mappings by column; the two columns of attacks beyond AutoAttack may be left out."""
        for row in rows:
            _check(row)
            self._rows.append(row)
            if len(self._rows) >= self._group:
                self._flush()

    def close(self) -> None:
        self._flush()
        self._out.close()
        os.replace(self._partial, self._path)

    def _flush(self) -> None:
        if self._rows:
            self._out.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._out.close()
            self._partial.unlink(missing_ok=True)


def _check(row: Mapping[str, Any]) -> None:
    for field in SCHEMA:
        if not field.nullable and row.get(field.name) is None:
            raise ValueError(f"record of example {row.get('id')} has no {field.name}")
    if strange := sorted(set(row) - set(SCHEMA.names)):
        raise ValueError(f"record of example {row['id']} has {', '.join(strange)}: there is no such column")
    robust, beyond = row["attack"] == WITHSTOOD, row.get("attack_beyond")
    alone = None if beyond is None else robust and beyond == WITHSTOOD
    if (row["robust"], row.get("robust_beyond")) != (robust, alone):
        raise ValueError(
            f"record of example {row['id']}: robust={row['robust']}, robust_beyond={row.get('robust_beyond')} with "
            f"attack={row['attack']!r}, attack_beyond={beyond!r}"
        )


@dataclass(frozen=True)
class Records:
    """``columns``: numpy arrays by name, ``(rows,)``; strings and what may be null as objects."""

    path: str
    about: dict[str, Any]
    columns: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.columns["id"])

    @cached_property
    def threats(self) -> dict[tuple[str, float], np.ndarray]:
        """The rows of each (norm, eps), by ascending id.  Errors: ``Misuse`` for an example that is there twice."""
        norms, radii, found = self.columns["norm"], self.columns["eps"], {}
        for norm, eps in dict.fromkeys(zip(norms.tolist(), radii.tolist(), strict=True)):
            rows = np.flatnonzero((norms == norm) & (radii == eps))
            rows = rows[np.argsort(self.columns["id"][rows], kind="stable")]
            ids = self.columns["id"][rows]
            if len(twice := ids[1:][ids[1:] == ids[:-1]]):
                raise Misuse(f"{self.path}: example {twice[0]} is there twice for {norm} {eps:g}; evaluate again")
            found[norm, eps] = rows
        return found


def read(uri: str | Path) -> Records:
    """The records in a file, or in a folder's ``records.parquet``; a local path or ``s3://bucket/...``.

    Errors: ``Misuse`` for what is not there, not whole, or no records of an evaluation.
    """
    path = located(str(uri))
    shown = redact_text(path)
    try:
        with files(path).open(path) as file, pq.ParquetFile(file) as parquet:
            said = _about(parquet.schema_arrow, shown)
            table = parquet.read(columns=SCHEMA.names).cast(SCHEMA)
    except FileNotFoundError as error:
        raise Misuse(f"{shown} is not there: give the folder that `holdfast evaluate` left, or its {NAME}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Misuse(f"{shown} cannot be read as Parquet ({first_line(error)}): evaluate again") from error
    return Records(shown, said, {name: table[name].to_numpy() for name in SCHEMA.names})


def located(uri: str) -> str:
    """The records file of an evaluation's folder; a file is itself."""
    whole = uri.endswith(".parquet") or ("://" not in uri and Path(uri).is_file())
    return uri if whole else f"{uri.rstrip('/')}/{NAME}"


def _about(schema: pa.Schema, path: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((schema.metadata or {}).get(KEY, b"{}"))
    absent = [f.name for f in SCHEMA if f.name not in schema.names or schema.field(f.name).type != f.type]
    if absent or not {"name", "model", "data", "attack"} <= set(said):
        lacks = f"columns {', '.join(absent)}" if absent else f"the metadata {KEY.decode()}"
        raise Misuse(f"{path} holds no records of an evaluation (it lacks {lacks}): name what `holdfast evaluate` left")
    return said
