"""What is read out of an OCI archive, and what of it is sent to a node."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.archive import CONTAINERD_NAME_ANNOTATION, Archive, full_name
from tests.cluster.errors import ClusterError
from tests.cluster.oci import write_image


def image(folder: Path, name: str) -> Path:
    content = folder / "content"
    content.write_text("hello")
    write_image(folder / "image.tar", name, files={"bin/hello": content}, command=["/bin/hello"])
    return folder / "image.tar"


def sent(archive: Archive, *there: str) -> dict[str, bytes]:
    """The files that reach a node which has some blobs already."""
    stream = io.BytesIO()
    archive.copy_without(lambda digest: digest in there, stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as received:
        files = {member.name: received.extractfile(member) for member in received if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("engine", "docker.io/library/engine:latest"),
        ("layercast/engine:dev", "docker.io/layercast/engine:dev"),
        ("localhost/engine", "localhost/engine:latest"),
        ("registry.example:5000/a/b", "registry.example:5000/a/b:latest"),
        ("registry.example/a/b:1", "registry.example/a/b:1"),
    ],
)
def test_a_name_is_made_full_as_the_kubelet_does(short: str, full: str) -> None:
    assert full_name(short) == full


def test_an_image_is_known_by_the_name_it_was_pushed_with(tmp_path: Path) -> None:
    archive = Archive(image(tmp_path, "localhost/hello:1"))
    index = json.loads(sent(archive)["index.json"])
    assert [one.name for one in archive.images] == ["localhost/hello:1"]
    assert index["manifests"][0]["annotations"][CONTAINERD_NAME_ANNOTATION] == "localhost/hello:1"


def test_the_lowest_layers_chain_is_its_own_digest(tmp_path: Path) -> None:
    (layer,) = Archive(image(tmp_path, "localhost/hello:1")).layers
    assert (layer.chain, layer.parent) == (layer.digest, None)


def test_a_blob_that_is_there_is_not_sent(tmp_path: Path) -> None:
    archive = Archive(image(tmp_path, "localhost/hello:1"))
    (layer,) = archive.layers
    everything, rest = sent(archive), sent(archive, layer.digest)
    assert everything.keys() - rest.keys() == {f"blobs/{layer.digest.replace(':', '/')}"}


@pytest.mark.parametrize("name", ["", "latest", "1.0"])
def test_an_archive_without_a_name_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(ClusterError, match="push it to oci-archive:FILE:NAME:TAG"):
        Archive(image(tmp_path, name))


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_text("nothing")
    with pytest.raises(ClusterError, match="is not an OCI archive"):
        Archive(tmp_path / "no.tar")


def test_the_same_files_make_the_same_image(tmp_path: Path) -> None:
    first = image(tmp_path, "localhost/hello:1").read_bytes()
    assert image(tmp_path, "localhost/hello:1").read_bytes() == first
