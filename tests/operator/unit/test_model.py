"""Model URIs: what each scheme means, and what is refused."""

import pytest
from layercast_operator.api.decode import Invalid
from layercast_operator.api.model import BadModelUri, ModelSource, Scheme, parse_model_uri
from layercast_operator.api.spec import parse_spec

from tests.operator.builders import spec

GOOD = {
    "hf://org/name": ModelSource(Scheme.HUGGING_FACE, path="org/name"),
    "pvc://claim/a/b": ModelSource(Scheme.CLAIM, claim="claim", path="a/b"),
    "pvc://claim": ModelSource(Scheme.CLAIM, claim="claim"),
    "pvc://claim/": ModelSource(Scheme.CLAIM, claim="claim"),
    "file:///srv/models/a": ModelSource(Scheme.NODE_PATH, path="/srv/models/a"),
    "image:///opt/model": ModelSource(Scheme.IMAGE_PATH, path="/opt/model"),
}


@pytest.mark.parametrize("uri", GOOD)
def test_good(uri: str) -> None:
    assert parse_model_uri(uri) == GOOD[uri]


BAD = ["", "name", "org/name", "s3://a/b", "hf://name", "hf://a/b/c", "file://srv", "image://a", "pvc:///a"]
ESCAPES = ["pvc://claim/../b", "file:///a/../b", "image:///..", "hf://org/..", "file:///a b"]


@pytest.mark.parametrize("uri", BAD + ESCAPES)
def test_bad_with_a_message_that_says_what_is_good(uri: str) -> None:
    with pytest.raises(BadModelUri, match=r"^model\.uri must be hf://ORG/NAME, pvc://CLAIM/PATH"):
        parse_model_uri(uri)


def test_a_bad_spec_names_every_reason_at_once() -> None:
    bad = spec(engine__args=["--port=1"], decode__replicas=0, prefill__parallelism__tensor=2)
    with pytest.raises(Invalid) as invalid:
        parse_spec(bad)
    for part in ("engine.args: remove '--port=1'", "decode.replicas must be", "parallelism.tensor must be equal"):
        assert part in str(invalid.value)


def test_a_wrong_type_names_the_field() -> None:
    with pytest.raises(Invalid, match=r"^spec: prefill.replicas: Expected `int`, got `str`"):
        parse_spec(spec(prefill__replicas="one"))
