"""Engine flags and environment variables that the operator owns, and how to spot them.

A user's flag that the operator also sets would win silently (argparse keeps the last one) and could
point two roles at different models, break the probes or replace the connector. So such a flag is
refused, whatever its spelling: vLLM's parser takes `_` for `-`, `--flag=value`, `--flag.sub value`,
single-dash short names, any unambiguous abbreviation, and whole files of flags by `--config`.

This module knows names only: it must never look at values, nor decide what happens to the resource.
The CRD's CEL rules carry the same names (`cel_pattern`; a unit test compares them); abbreviations are
caught here only.
"""

from collections.abc import Iterable

_MODEL = "set model.uri, model.revision or model.servedName instead"
_ADDRESS = "the probes, the Services and the other role expect the operator's address"
_PARALLEL = "set parallelism of the role instead; other kinds of parallelism are not supported yet"
_TLS = "TLS and API keys on the endpoint are not supported yet: end them in front of the Service"

# Long name without dashes → what to do instead.
OWNED_FLAGS: dict[str, str] = {
    "model": _MODEL,
    "served-model-name": _MODEL,
    "revision": _MODEL,
    "host": _ADDRESS,
    "port": _ADDRESS,
    "uds": _ADDRESS,
    "headless": _ADDRESS,
    "root-path": _ADDRESS,
    "config": "a file of flags could hide an owned one: list the flags themselves",
    "kv-transfer-config": "the connector is configured by spec.connector",
    "tensor-parallel-size": _PARALLEL,
    "pipeline-parallel-size": _PARALLEL,
    "decode-context-parallel-size": _PARALLEL,
    "prefill-context-parallel-size": _PARALLEL,
    "nnodes": _PARALLEL,
    "node-rank": _PARALLEL,
    "master-addr": _PARALLEL,
    "master-port": _PARALLEL,
    "enable-dbo": "the connector's hooks run once per layer, and dual-batch overlap calls them twice",
    "max-model-len": "set engine.maxModelLen instead: both roles must agree",
    "block-size": "set engine.blockSize instead: both roles must agree",
    "kv-cache-dtype": "set engine.kvCacheDtype instead: both roles must agree",
    "api-key": _TLS,
}

# Beginnings of long names: every flag that starts so is owned.
OWNED_FAMILIES: dict[str, str] = {"data-parallel-": _PARALLEL, "ssl-": _TLS}

# Short name without its dash → the long name that it stands for.
SHORT_FLAGS: dict[str, str] = {
    "tp": "tensor-parallel-size",
    "pp": "pipeline-parallel-size",
    "dp": "data-parallel-size",
    "dpl": "data-parallel-size-local",
    "dpn": "data-parallel-rank",
    "dpr": "data-parallel-start-rank",
    "dpa": "data-parallel-address",
    "dpp": "data-parallel-rpc-port",
    "dpb": "data-parallel-backend",
    "dph": "data-parallel-hybrid-lb",
    "dpe": "data-parallel-external-lb",
    "dcp": "decode-context-parallel-size",
    "pcp": "prefill-context-parallel-size",
    "n": "nnodes",
    "r": "node-rank",
}

OWNED_ENV: frozenset[str] = frozenset(
    {"VLLM_HOST_IP", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HOME"}
)


def owned_flag(arg: str) -> str | None:
    """The owned flag (long name) that this argument would set, or None."""
    if arg.startswith("--"):
        return _owned_long(arg[2:])
    if arg.startswith("-") and len(arg) > 1:
        return _owned_short(arg[1:])
    return None


def _owned_long(text: str) -> str | None:
    name = text.split("=", 1)[0].split(".", 1)[0].replace("_", "-")
    if not name:
        return None
    if name in OWNED_FLAGS or any(name.startswith(family) for family in OWNED_FAMILIES):
        return name
    return next((flag for flag in (*OWNED_FLAGS, *OWNED_FAMILIES) if flag.startswith(name)), None)


def _owned_short(text: str) -> str | None:
    name = text.split("=", 1)[0]
    if name in SHORT_FLAGS:
        return SHORT_FLAGS[name]
    for short, long in SHORT_FLAGS.items():
        if short.startswith(name) or (len(short) == 1 and name.startswith(short)):
            return long
    return None


def why_owned(flag: str) -> str:
    """What to do instead of setting an owned flag (long name)."""
    reasons = (why for family, why in OWNED_FAMILIES.items() if flag.startswith(family))
    return OWNED_FLAGS.get(flag) or next(reasons)


def refused_args(where: str, args: Iterable[str]) -> list[str]:
    """One sentence for each argument that the operator owns."""
    owned = ((arg, owned_flag(arg)) for arg in args)
    return [f"{where}: remove {arg!r}: {why_owned(flag)}" for arg, flag in owned if flag is not None]


def refused_env(where: str, names: Iterable[str]) -> list[str]:
    """One sentence for each environment variable that the operator owns."""
    return [f"{where}: remove {name}: the operator sets it" for name in names if name in OWNED_ENV]


def cel_pattern() -> str:
    """The regular expression of the CRD's CEL rule: every spelling but abbreviations.

    Short, because the cost limit of CEL grows with it: `.` stands for `-` or `_`.
    """
    longs = "|".join(flag.replace("-", ".") for flag in OWNED_FLAGS)
    families = "|".join(family.replace("-", ".") for family in OWNED_FAMILIES)
    shorts = "|".join(short for short in SHORT_FLAGS if not short.startswith("dp"))
    return f"^(--(({longs})([=.].*)?|({families}).*)|-({shorts}|dp.?)(=.*)?)$"
