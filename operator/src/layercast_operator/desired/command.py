"""The two shell scripts of a pod. The engine's arguments never pass through them: they come as "$@".

Values that are put into a script are paths from the platform's preset, quoted; nothing that a user of
the resource wrote may ever get in here.
"""

import shlex
from collections.abc import Sequence

# A sourced file sees the caller's "$@" and may parse it (ATB's set_env.sh does), so it is put aside.
_SOURCE = """layercast_engine=("$@")
for layercast_file in {files}; do
  [ -r "$layercast_file" ] || {{ echo "layercast: $layercast_file is missing in the image" >&2; exit 1; }}
  set --; . "$layercast_file"
done
set -- "${{layercast_engine[@]}}"
"""
_PRELOAD = """for layercast_file in {files}; do
  [ -e "$layercast_file" ] && export LD_PRELOAD="$layercast_file" && break
done
"""
_PREFLIGHT = """missing=0
for file in "$@"; do
  [ -e "{root}$file" ] || {{ echo "layercast preflight: this node has no $file" >&2; missing=1; }}
done
[ "$missing" = 0 ] || echo "layercast preflight: install the driver, or keep these pods off this node" >&2
exit "$missing"
"""


def launch_script(sources: Sequence[str], preload: Sequence[str]) -> str:
    """Sets up the shell as the image expects it, then becomes the engine."""
    script = ""
    if sources:
        script += _SOURCE.format(files=_quoted(sources))
    if preload:
        script += _PRELOAD.format(files=_quoted(preload))
    return f'{script}exec "$@"'


def preflight_script(root: str) -> str:
    """Checks that each path in "$@" exists under `root`."""
    return _PREFLIGHT.format(root=root)


def _quoted(paths: Sequence[str]) -> str:
    return " ".join(shlex.quote(path) for path in paths)
