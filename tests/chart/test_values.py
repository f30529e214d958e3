"""Values that don't fit are refused before anything is sent to a cluster, with a message that names the place."""

import pytest

from tests.chart.helm import Helm, HelmRefused
from tests.chart.installs import Values

# helm is one of the tools that this phase of the tests has at hand; no apiserver is started.
pytestmark = pytest.mark.apiserver

BAD = {
    "an unknown value": ({"replica": 1}, "additional properties 'replica' not allowed"),
    "an unknown value in a block": ({"crds": {"instal": True}}, "at '/crds': additional properties 'instal'"),
    "an unknown field of a platform": (
        {"platforms": {"CPU": {"imag": "x"}}},
        "at '/platforms/CPU': additional properties 'imag' not allowed",
    ),
    "a platform without an image": (
        {"platforms": {"GPU": {"mooncakeProtocol": "tcp"}}},
        "at '/platforms/GPU': missing property 'image'",
    ),
    "a number where the environment has text": (
        {"platforms": {"CPU": {"env": {"OMP_NUM_THREADS": 4}}}},
        "at '/platforms/CPU/env/OMP_NUM_THREADS': got number, want string",
    ),
    "a word for a number": ({"replicas": "two"}, "at '/replicas': got string, want integer"),
    "root": ({"runAsUser": 0}, "at '/runAsUser': minimum: got 0, want 1"),
    "a pull policy that isn't one": (
        {"image": {"pullPolicy": "Sometimes"}},
        "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
    ),
    "a namespace with capitals": ({"watchNamespaces": ["Team"]}, "at '/watchNamespaces/0': 'Team' does not match"),
    "a namespace twice": ({"watchNamespaces": ["a", "a"]}, "at '/watchNamespaces': items at 0 and 1 are equal"),
    "namespaces as a word": ({"watchNamespaces": "a"}, "at '/watchNamespaces': got string, want array"),
    "no platform": ({"platforms": {"CPU": None, "Ascend": None}}, "at '/platforms': minProperties: got 0, want 1"),
    "a log level that isn't one": ({"operator": {"logLevel": "LOUD"}}, "at '/operator/logLevel': value must be one of"),
    "a lease that ends before its holder gives up": (
        {"leaderElection": {"renewSeconds": 15}},
        "leaderElection needs periodSeconds < renewSeconds < leaseSeconds",
    ),
    "somebody else's account without a name": (
        {"serviceAccount": {"create": False}},
        "serviceAccount.name is needed when serviceAccount.create is false",
    ),
}


@pytest.mark.parametrize(("values", "message"), BAD.values(), ids=BAD.keys())
def test_refuses(helm: Helm, values: Values, message: str) -> None:
    with pytest.raises(HelmRefused) as refused:
        helm.template(values)

    assert message in str(refused.value)
