"""The CRD and the code that reads it agree, and the schema keeps the rules that it has to keep."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import yaml
from layercast_operator.api import kinds
from layercast_operator.api.conditions import ConditionType
from layercast_operator.api.flags import OWNED_ENV, cel_pattern
from layercast_operator.api.model import URI_HELP, URI_PATTERN
from layercast_operator.api.spec import parse_spec

from tests.operator.builders import CRD

Schema = dict[str, Any]
CONTENT = yaml.safe_load(CRD.read_text())
VERSION = CONTENT["spec"]["versions"][0]
SPEC: Schema = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]
ARGS = [("engine", "args"), ("prefill", "engineArgs"), ("decode", "engineArgs")]


def nodes(schema: Schema, path: str = "spec") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{path}[]")


def at(*path: str) -> Schema:
    schema = SPEC
    for name in path:
        schema = schema["properties"][name]
    return schema


def test_the_names_are_those_of_the_code() -> None:
    names = CONTENT["spec"]["names"]
    assert (CONTENT["spec"]["group"], VERSION["name"]) == (kinds.GROUP, kinds.VERSION)
    assert (names["kind"], names["plural"], names["shortNames"]) == ("DisaggregatedLLM", "disaggregatedllms", ["dllm"])


def test_every_field_is_described_once_it_is_not_part_of_a_list_of_its_like() -> None:
    bare = [
        path
        for path, schema in nodes(SPEC)
        if "description" not in schema and "[]" not in path and not path.endswith((".name", ".key"))
    ]
    allowed = {"requests", "limits", "key", "value", "name"}
    assert [path for path in bare if path.rsplit(".", 1)[-1] not in allowed] == []


def test_every_list_map_and_string_has_a_bound() -> None:
    bounds = {"array": "maxItems", "string": "maxLength"}
    unbound = [
        path
        for path, schema in nodes(SPEC)
        if schema.get("type") in bounds and bounds[schema["type"]] not in schema and "enum" not in schema
    ]
    maps = [(path, schema) for path, schema in nodes(SPEC) if "additionalProperties" in schema]
    unbound += [path for path, schema in maps if "maxProperties" not in schema]
    assert unbound == []


@pytest.mark.parametrize("path", ARGS, ids=".".join)
def test_the_rule_for_owned_flags_is_that_of_the_code(path: tuple[str, str]) -> None:
    (rule,) = at(*path)["x-kubernetes-validations"]
    assert f"matches('{cel_pattern()}')" in rule["rule"]
    assert rule["message"].startswith(f"{'.'.join(path)} must not set")


def test_the_rule_for_owned_variables_is_that_of_the_code() -> None:
    (rule,) = at("engine", "env")["x-kubernetes-validations"]
    assert all(f"'{name}'" in rule["rule"] and name in rule["message"] for name in OWNED_ENV)


def test_the_rule_for_model_uris_is_that_of_the_code() -> None:
    (rule,) = at("model", "uri")["x-kubernetes-validations"]
    assert f"matches(r'{URI_PATTERN}')" in rule["rule"]
    assert rule["message"] == URI_HELP


def defaulted(schema: Schema, value: Any) -> Any:
    """What the apiserver makes of a value."""
    if not isinstance(value, dict) or "properties" not in schema:
        return value
    properties = schema["properties"]
    absent = {name: each["default"] for name, each in properties.items() if "default" in each and name not in value}
    return {name: defaulted(properties.get(name, {}), each) for name, each in (value | absent).items()}


def test_defaults_of_schema_and_code_are_equal() -> None:
    smallest = {"model": {"uri": "hf://a/b"}, "platform": "CPU"}
    assert parse_spec(defaulted(SPEC, smallest)) == parse_spec(smallest)


def test_the_code_reads_every_field_and_no_other() -> None:
    full = msgspec.json.schema(type(parse_spec({"model": {"uri": "hf://a/b"}, "platform": "CPU"})))
    structs = full["$defs"]

    def compare(struct: Schema, schema: Schema, path: str) -> None:
        struct = structs[struct["$ref"].rsplit("/", 1)[-1]] if "$ref" in struct else struct
        if "properties" not in struct or "properties" not in schema:
            return
        assert set(struct["properties"]) == set(schema["properties"]), path
        for name, child in schema["properties"].items():
            options = [struct["properties"][name], *struct["properties"][name].get("anyOf", [])]
            reference = next((each for each in options if "$ref" in each), {})
            compare(reference, child, f"{path}.{name}")

    compare(full, SPEC, "spec")


def test_both_roles_have_the_same_fields() -> None:
    def shape(role: str) -> list[tuple[str, Any]]:
        return [
            (path.replace(role, "role"), {key: schema.get(key) for key in ("type", "default", "maxItems", "maximum")})
            for path, schema in nodes(at(role), role)
        ]

    assert shape("prefill") == shape("decode")


def test_the_columns_show_conditions_that_exist() -> None:
    columns = {column["name"]: column["jsonPath"] for column in VERSION["additionalPrinterColumns"]}
    assert {"Ready", "Prefill", "Decode", "Age"} <= set(columns)
    assert f'@.type=="{ConditionType.READY.value}"' in columns["Ready"]
