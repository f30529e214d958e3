"""The operator's configuration: a bad one is refused with what to change."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from layercast_operator.wiring.config import BadConfig, load_config, read_root_secret
from layercast_operator.wiring.main import main

from tests.operator.builders import platforms, platforms_data


def config(folder: Path, **changes: Any) -> Path:
    secret = folder / "secret"
    secret.write_text("x" * 32)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({"platforms": platforms_data(), "rootSecretFile": str(secret), **changes}))
    return path


def test_the_charts_platforms_are_read(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path))
    assert loaded.platforms == platforms()
    assert loaded.namespaces == ()
    assert read_root_secret(loaded) == b"x" * 32


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"plattforms": {}}, "unknown field `plattforms`"),
    "a preset without an image": ({"platforms": {"CPU": {"mooncakeProtocol": "tcp"}}}, "required field `image`"),
    "a wrong type": ({"workers": "many"}, "workers: Expected `int`, got `str`"),
    "a lease that is shorter than its renewal": (
        {"leaderElection": {"leaseSeconds": 5, "renewSeconds": 6}},
        "periodSeconds < renewSeconds < leaseSeconds",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_bad(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig, match=message):
        load_config(config(tmp_path, **changes))


def test_a_short_root_secret_is_refused(tmp_path: Path) -> None:
    loaded = load_config(config(tmp_path))
    Path(loaded.root_secret_file).write_text("short")
    with pytest.raises(BadConfig, match="holds 5 bytes; 32 are the least"):
        read_root_secret(loaded)


def test_the_process_ends_with_the_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^layercast-operator: .*none\.yaml"):
        main(["--config", str(tmp_path / "none.yaml")])
