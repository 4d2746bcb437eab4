import pickle

import pytest

from trainers.data.files import LocalFiles, Ranges, listed


def test_lists_sorted_without_hidden_files(tmp_path):
    for name in ("b/2.txt", "a.txt", ".cache/x", "b/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert LocalFiles().list(str(tmp_path)) == [str(tmp_path / "a.txt"), str(tmp_path / "b/2.txt")]


def test_missing_and_empty_folders_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"data.path=.*gone does not exist"):
        listed(LocalFiles(), str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="holds no files"):
        listed(LocalFiles(), str(tmp_path))


def test_ranges_read_what_is_there_within_their_memory(tmp_path):
    content = bytes(i * 7 % 251 for i in range(5 * 2**20 + 123))
    (tmp_path / "f").write_bytes(content)
    ranges = Ranges(LocalFiles(), megabytes=2)
    for offset, size in ((0, 10), (2**20 - 5, 10), (3 * 2**20, 2**20 + 1), (len(content) - 3, 10), (7, 3 * 2**20)):
        assert ranges.read(str(tmp_path / "f"), offset, size) == content[offset : offset + size]
        assert len(ranges._blocks) <= 2
    copy = pickle.loads(pickle.dumps(ranges))
    assert copy.read(str(tmp_path / "f"), 5, 5) == content[5:10]
    ranges.close()
    copy.close()
