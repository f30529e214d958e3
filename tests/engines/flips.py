"""What to corrupt, said through a file: the test writes it, the corrupting connector in the engine takes it away."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

VARIABLE = "LAYERCAST_TEST_FLIP_FILE"


@dataclass(frozen=True)
class Flip:
    """One byte of one arrived block: the exponent of its `number`-th float, in one layer's KV cache."""

    layer: int
    block: int
    number: int


@dataclass(frozen=True)
class FlipOrder:
    """A file that is there from when a flip is ordered until it is done, for exactly one request."""

    path: Path

    @classmethod
    def from_environment(cls) -> Self | None:
        path = os.environ.get(VARIABLE)
        return cls(Path(path)) if path else None

    def give(self, flip: Flip) -> None:
        draft = self.path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(flip)))
        draft.rename(self.path)

    def pending(self) -> bool:
        return self.path.exists()

    def read(self) -> Flip | None:
        if not self.pending():
            return None
        return Flip(**json.loads(self.path.read_text()))

    def done(self) -> None:
        self.path.unlink()
