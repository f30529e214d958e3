"""Files that daemons watch: written whole, and only when they would change."""

from pathlib import Path


def write(path: Path, content: str, *, mode: int = 0o644) -> None:
    """kube-proxy ends when its file is touched, so a second `up` must not touch it."""
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.touch(mode)
    unfinished.write_text(content)
    unfinished.rename(path)
