"""The pods' shell scripts, run by real shells."""

import subprocess
from pathlib import Path

from layercast_operator.desired.command import launch_script, preflight_script

ARGS = ["printf", "<%s>", "two words", "$HOME", "--flag='x'"]
PRINTED = "<two words><$HOME><--flag='x'>"


def launch(sources: list[str], preload: list[str], args: list[str]) -> subprocess.CompletedProcess[str]:
    command = ["/bin/bash", "-c", launch_script(sources, preload), "engine", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_arguments_reach_the_engine_untouched() -> None:
    assert launch([], [], ARGS).stdout == PRINTED


def test_sourced_files_set_the_environment_and_see_no_arguments(tmp_path: Path) -> None:
    first, second = tmp_path / "a file.sh", tmp_path / "b.sh"
    first.write_text('export FOUND="$#"; set -- changed\n')
    second.write_text('export FOUND="$FOUND-$#"\n')
    done = launch([str(first), str(second)], [], ["/bin/sh", "-c", 'printf "%s" "$FOUND"'])
    assert done.stdout == "0-0"
    assert launch([str(first)], [], ARGS).stdout == PRINTED


def test_a_missing_file_to_source_ends_the_pod_with_its_name(tmp_path: Path) -> None:
    done = launch([str(tmp_path / "none.sh")], [], ARGS)
    assert done.returncode == 1
    assert f"{tmp_path}/none.sh is missing in the image" in done.stderr


def test_the_first_library_that_exists_is_preloaded(tmp_path: Path) -> None:
    library = tmp_path / "libfound.so"
    library.write_text("")
    report = ["/bin/bash", "-c", 'printf "%s" "$LD_PRELOAD"']
    assert launch([], [str(tmp_path / "none.so"), str(library)], report).stdout == str(library)
    assert launch([], [str(tmp_path / "none.so")], report).stdout == ""


def test_the_preflight_names_everything_that_the_node_lacks(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/there").write_text("")

    def preflight(*files: str) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", preflight_script(str(tmp_path)), "preflight", *files]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert preflight("/etc/there").returncode == 0
    refused = preflight("/etc/there", "/etc/hccn.conf", "/driver")
    assert refused.returncode == 1
    assert "this node has no /etc/hccn.conf" in refused.stderr and "no /driver" in refused.stderr
