"""The chart says the same as the operator's code and the installation guide. Needs no helm."""

import re
import tomllib

import msgspec
import yaml
from layercast_operator.presets import preset

from tests.chart.helm import CHART, ROOT


def test_chart_and_operator_have_one_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "operator/pyproject.toml").read_text())["project"]

    assert chart["appVersion"] == chart["version"] == project["version"]


def test_the_schema_knows_the_fields_of_a_platform_and_no_others() -> None:
    schema = msgspec.json.decode((CHART / "values.schema.json").read_bytes())
    stated = schema["definitions"]["platform"]

    fields = {field.encode_name: field for field in msgspec.structs.fields(preset.Preset)}

    assert set(stated["properties"]) == set(fields)
    assert set(stated["required"]) == {name for name, field in fields.items() if field.required}


def test_every_value_is_in_the_installation_guide_and_no_other() -> None:
    chart = yaml.safe_load((CHART / "values.yaml").read_text())
    guide = (ROOT / "docs/install.md").read_text()
    table = guide.partition("## Values")[2].partition("\n## ")[0]
    first_cells = "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))

    assert {name.split(".")[0] for name in re.findall(r"`([\w.]+)`", first_cells)} == set(chart)
