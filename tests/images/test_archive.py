"""Layers and archives, on small ones."""

import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from images import build, oci
from images.layers import add_file, add_tree, keep_os, keep_venv, matches
from images.python_env import add_wheel
from images.spec import SPECS, ImageSpec

OPERATOR = SPECS["operator"]


def layer(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            add_file(tar, name, data)
    return buffer.getvalue()


def tree(root: Path) -> list[tarfile.TarInfo]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add_tree(tar, root, "opt", keep_venv, ours=True)
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        return tar.getmembers()


@pytest.mark.parametrize(
    ("path", "pattern", "met"),
    [
        pytest.param("a/b.so", "a/*.so", True, id="a star stands for a name"),
        pytest.param("a/b/c.so", "a/*.so", False, id="a star stops at a slash"),
        pytest.param("x/a/b.so", "a/*.so", False, id="a pattern begins at the root"),
    ],
)
def test_patterns(path: str, pattern: str, met: bool) -> None:
    assert matches(path, [pattern]) is met


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("usr/bin/python3.11", True),
        ("var/lib/apt/lists/a_Packages", False),
        ("var/cache/apt", False),
        ("usr/share/doc/libc6/copyright", True),
        ("usr/share/doc/libc6/changelog.gz", False),
        ("usr/share/man/man1", False),
        ("dev/null", False),
        ("dev", True),
    ],
)
def test_what_is_kept_of_the_operating_system(path: str, kept: bool) -> None:
    assert keep_os(path) is kept


def test_our_trees_are_the_same_whoever_made_them_and_when(tmp_path: Path) -> None:
    for name, mode, time in (("one", 0o600, 1), ("two", 0o666, 2)):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "file").write_text("x")
        (tmp_path / name / "bin" / "activate").write_text("names a path of the machine")
        (tmp_path / name / "file").chmod(mode)
        os.utime(tmp_path / name / "file", (time, time))
    one, two = ([member.get_info() for member in tree(tmp_path / name)] for name in ("one", "two"))
    assert [member.name for member in tree(tmp_path / "one")] == ["opt/bin", "opt/file"]
    for left, right in zip(one, two, strict=True):
        assert {**left, "chksum": 0} == {**right, "chksum": 0}


def test_a_wheel_brings_its_scripts() -> None:
    wheel, buffer = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/__init__.py", "")
        archive.writestr("pack-1.dist-info/entry_points.txt", "[console_scripts]\nrun-me = pack.main:go\n")
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        add_wheel(tar, wheel.getvalue())
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as tar:
        script = tar.extractfile("opt/venv/bin/run-me")
        assert script is not None and b"from pack.main import go" in script.read()
        assert tar.getmember("opt/venv/bin/run-me").mode == 0o755


class TestArchive:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        path = tmp_path / "operator.oci.tar"
        with path.open("w+b") as file:
            base = oci.add_layer(file, lambda tar: add_file(tar, "big", bytes(100_000)))
            oci.Record("key", file.tell(), (base,)).write(path)
        return path

    def write(self, archive: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(build, "_our_layers", lambda spec: [layer(ours=content)])
        record = oci.Record.read(archive)
        assert record is not None
        return build._write_ours(OPERATOR, archive, record)

    def test_each_blob_is_what_its_name_says(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.write(archive, b"x", monkeypatch)
        with tarfile.open(archive) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                if member.name.startswith("blobs/"):
                    assert member.name == f"blobs/sha256/{hashlib.sha256(file.read()).hexdigest()}"

    def test_it_has_the_name_that_pods_ask_for(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        digest = self.write(archive, b"x", monkeypatch)
        with tarfile.open(archive) as tar:
            index = json.load(tar.extractfile("index.json") or io.BytesIO())
        entry = index["manifests"][0]
        assert entry["annotations"]["io.containerd.image.name"] == "layercast.local/operator:dev"
        assert entry["digest"] == f"sha256:{digest}"

    def test_our_change_leaves_the_lower_layers_where_they_are(
        self, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = self.write(archive, b"x" * 50_000, monkeypatch)
        record = oci.Record.read(archive)
        assert record is not None
        before = archive.read_bytes()
        second = self.write(archive, b"y", monkeypatch)
        after = archive.read_bytes()
        assert first != second and len(after) < len(before)
        assert before[: record.base_end] == after[: record.base_end]
        with tarfile.open(archive) as tar:
            assert len([name for name in tar.getnames() if name.startswith("blobs/")]) == 4

    def test_the_same_bytes_leave_the_file_alone(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = self.write(archive, b"x", monkeypatch)
        os.utime(archive, (1, 1))
        assert self.write(archive, b"x", monkeypatch) == first
        assert archive.stat().st_mtime == 1

    def test_an_archive_that_was_being_written_is_not_trusted(
        self, archive: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object) -> list[bytes]:
            raise KeyboardInterrupt

        self.write(archive, b"x", monkeypatch)
        monkeypatch.setattr(build, "_base_fills", die)
        with pytest.raises(KeyboardInterrupt):
            build._write_base(ImageSpec("operator"), archive.parent, archive, "other key")
        assert oci.Record.read(archive) is None
