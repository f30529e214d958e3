"""The operator's image as it is built: what is in it, and that it runs as its user."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images import oci
from images.build import build
from images.rootfs import rootfs
from images.spec import SITE_PACKAGES, SPECS, USER_ID, cache_dir

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

SPEC = SPECS["operator"]
COMPILERS = {"as", "c++", "cc", "clang", "g++", "gcc", "go", "ld", "nvcc", "ptxas", "rustc", "tcc"}


@pytest.fixture(scope="module")
def archive() -> Path:
    if os.geteuid():
        pytest.skip("debootstrap and chroot need root")
    return build(SPEC, cache_dir())


@pytest.fixture(scope="module")
def config(archive: Path) -> dict[str, Any]:
    with tarfile.open(archive) as tar:

        def read(name: str) -> Any:
            return json.load(tar.extractfile(name) or io.BytesIO())

        def blob(descriptor: dict[str, str]) -> Any:
            return read("blobs/" + descriptor["digest"].replace(":", "/"))

        return dict(blob(blob(read("index.json")["manifests"][0])["config"]))


def layers(archive: Path) -> Iterator[tarfile.TarFile]:
    record = oci.Record.read(archive)
    assert record is not None
    with tarfile.open(archive) as tar:
        for position, member in enumerate(name for name in tar.getmembers() if name.name.startswith("blobs/")):
            stored = (tar.extractfile(member) or io.BytesIO()).read()
            if position < len(record.layers):
                stored = subprocess.run(["zstd", "-dcq"], input=stored, stdout=subprocess.PIPE, check=True).stdout
            elif position > len(record.layers):  # behind ours come the documents
                return
            with tarfile.open(fileobj=io.BytesIO(stored)) as layer:
                yield layer


@pytest.fixture(scope="module")
def root(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    for layer in layers(archive):
        layer.extractall(folder, numeric_owner=True, filter="fully_trusted")
    folder.chmod(0o755)
    return folder


def inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": SPEC.env["PATH"], "HOME": "/tmp"}
    chroot = ["chroot", f"--userspec={USER_ID}:{USER_ID}", str(root), *command]
    return subprocess.run(chroot, env=env, capture_output=True, text=True, timeout=60)


def test_it_runs_as_a_user_by_number(config: dict[str, Any]) -> None:
    assert config["config"]["User"] == "65532:65532"
    assert config["config"]["Entrypoint"] == ["layercast-operator"]


def test_the_digests_of_the_layers_are_those_of_their_tars(archive: Path, config: dict[str, Any]) -> None:
    assert len(list(layers(archive))) == len(config["rootfs"]["diff_ids"]) == 3


def test_it_starts_as_its_user_without_a_writable_root(root: Path) -> None:
    done = inside(root, "layercast-operator", "--help")
    assert done.returncode == 0, done.stderr
    assert inside(root, "sh", "-c", "touch /x /opt/venv/x /etc/x").returncode != 0


def test_its_bytecode_is_used(root: Path) -> None:
    done = inside(root, "python3", "-v", "-c", "import kopf")
    assert f"/{SITE_PACKAGES}/kopf/__pycache__/__init__.cpython-311.pyc matches" in done.stderr


def test_there_is_no_compiler_and_no_installer(root: Path) -> None:
    folders = ("usr/bin", "usr/sbin", "usr/local/bin", "opt/venv/bin")
    programs = {path.name for folder in folders for path in (root / folder).iterdir()}
    assert not programs & (COMPILERS | {"pip", "pip3", "uv"})


def test_nothing_is_left_of_the_building(root: Path) -> None:
    for folder in ("var/lib/apt/lists", "var/cache", "var/log", "tmp", "root/.cache", "debootstrap"):
        path = root / folder
        assert not path.exists() or not list(path.iterdir()), folder
    assert (root / "etc/resolv.conf").read_text() == ""


def test_no_file_names_a_path_of_the_building_machine(root: Path) -> None:
    cache = str(cache_dir()).encode()
    ours = (path for path in (root / "opt/venv").rglob("*") if path.is_file() and not path.is_symlink())
    assert not [path for path in ours if cache in path.read_bytes()]


def test_it_is_small(archive: Path) -> None:
    assert archive.stat().st_size < 120e6


def test_a_second_build_leaves_the_file_alone(archive: Path) -> None:
    before = archive.stat().st_mtime_ns
    assert build(SPEC, cache_dir()).stat().st_mtime_ns == before
    assert rootfs(SPEC, cache_dir()).is_dir()
