"""The keys that decide whether a lower layer is made anew."""

from pathlib import Path

import pytest

from images import spec as spec_module
from images.spec import SPECS, ImageSpec, base_key, digest_of, rootfs_key


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSpec:
    monkeypatch.setattr(spec_module, "REPO", tmp_path)
    spec = ImageSpec("sample")
    spec.folder.mkdir(parents=True)
    (spec.folder / "packages.txt").write_text("python3.11\nlibnuma1\n")
    (spec.folder / "requirements.txt").write_text("a==1 --hash=sha256:00\n")
    (spec.folder / "prune.txt").write_text("# why\na/include\n")
    return spec


def test_a_key_is_the_same_when_nothing_changed(image: ImageSpec) -> None:
    assert base_key(image) == base_key(image)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("packages.txt", "libnuma1\n\n# for numa\npython3.11\n", id="package order and comments"),
        pytest.param("prune.txt", "a/include\n", id="a comment in the prune list"),
    ],
)
def test_a_key_ignores(image: ImageSpec, file: str, content: str) -> None:
    before = base_key(image)
    (image.folder / file).write_text(content)
    assert base_key(image) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        pytest.param("packages.txt", "python3.11\n", id="a package less"),
        pytest.param("requirements.txt", "a==2 --hash=sha256:01\n", id="another lock"),
        pytest.param("prune.txt", "", id="nothing left out"),
    ],
)
def test_a_key_changes_with(image: ImageSpec, file: str, content: str) -> None:
    before = base_key(image)
    (image.folder / file).write_text(content)
    assert base_key(image) != before


def test_a_key_changes_with_the_format(image: ImageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = base_key(image), rootfs_key(["a"])
    monkeypatch.setattr(spec_module, "FORMAT", spec_module.FORMAT + 1)
    assert base_key(image) != before[0] and rootfs_key(["a"]) != before[1]


def test_a_digest_sees_where_one_part_ends() -> None:
    assert digest_of(["ab", "c"]) != digest_of(["a", "bc"])


def test_images_have_keys_of_their_own() -> None:
    assert len({base_key(spec) for spec in SPECS.values()}) == len(SPECS)
