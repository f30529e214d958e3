"""Names of children are valid, short enough and different, for any name that a resource may have."""

import re

from hypothesis import assume, example, given
from hypothesis import strategies as st
from layercast_operator.api.spec import Role
from layercast_operator.desired.names import REVISION_LENGTH, Names, base_name

LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")  # what a Service's name must be
_PART = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
RESOURCE_NAMES = st.from_regex(rf"{_PART}(\.{_PART}){{0,3}}", fullmatch=True)
REVISIONS = st.text("0123456789abcdef", min_size=REVISION_LENGTH, max_size=REVISION_LENGTH)


def all_names(resource: str, revision: str) -> list[str]:
    names = Names.of(resource)
    workloads = [names.workload(role, revision) for role in Role]
    return [names.service, names.secret, names.record(revision), *workloads]


@given(resource=RESOURCE_NAMES, revision=REVISIONS)
@example(resource="7b.v1", revision="0" * REVISION_LENGTH)
@example(resource="a" * 253, revision="0" * REVISION_LENGTH)
def test_every_name_is_a_dns_label(resource: str, revision: str) -> None:
    for name in all_names(resource, revision):
        assert LABEL.fullmatch(name), name


@given(resource=RESOURCE_NAMES, revision=REVISIONS)
def test_the_children_of_one_resource_differ(resource: str, revision: str) -> None:
    names = all_names(resource, revision)
    assert len(set(names)) == len(names)


@given(one=RESOURCE_NAMES, other=RESOURCE_NAMES)
@example(one="a.b", other="a-b")
@example(one="a" * 41, other="a" * 42)
def test_different_resources_have_different_names(one: str, other: str) -> None:
    assume(one != other)
    assert base_name(one) != base_name(other)


def test_a_name_that_fits_is_used_as_it_is() -> None:
    assert base_name("llama-3-8b") == "llama-3-8b"
