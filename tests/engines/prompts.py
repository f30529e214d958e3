"""The 200 prompts of the exactness run, by what each is there to show. Seeded: the same prompts every time."""

import math
import random
from dataclasses import dataclass

from tests.engines.client import Ask

BLOCK = 16
LONGEST = 4000
VOCABULARY = range(5, 2048)  # without the special tokens

# Below, at and above the edges of one block, of the shortest remote prompt (64) and of a chunk (512); and the ends.
EDGES = (
    *(1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257),
    *(495, 496, 497, 511, 512, 513, 527, 528, 529, 1023, 1024, 1025, 1535, 1536, 1537, 2047, 2048, 2049),
    *(3071, 3072, 3073, 3983, 3984, 3985, 3999, 4000),
)
# Where a prompt leaves the one whose beginning it shares.
CUTS = (15, 16, 17, 63, 64, 65, 255, 256, 257, 300)


@dataclass(frozen=True)
class Case:
    """A prompt, and how much of it each side has in its prefix cache when it is asked, in whole blocks."""

    name: str
    ask: Ask
    decode_cached: int = 0
    prefill_cached: int = 0

    def uncached(self) -> int:
        return len(self.ask.prompt) - self.decode_cached


@dataclass(frozen=True)
class Plan:
    """Asked in this order, each part whole before the next begins, so that what is cached when is known."""

    warm_prefill: tuple[Ask, ...]
    first: tuple[Case, ...]
    second: tuple[Case, ...]

    def cases(self) -> tuple[Case, ...]:
        return self.first + self.second


def whole_blocks(tokens: int) -> int:
    return tokens // BLOCK * BLOCK


def make_plan(salt: str, seed: int = 20) -> Plan:
    return _Maker(salt, seed).plan()


class _Maker:
    def __init__(self, salt: str, seed: int) -> None:
        self.salt = salt
        self.random = random.Random(seed)

    def plan(self) -> Plan:
        fresh = [self.case("fresh", self.tokens(length)) for length in (*EDGES, *self.lengths(75))]
        pairs = [self.case("n=2", self.tokens(length), n=2) for length in (40, 64, 513, *self.lengths(17))]
        warm = [self.warm(length, cut) for length in self.lengths(2, shortest=400) for cut in CUTS[:8]]
        # Those prompts stay on decode (too short), so that only decode has their blocks.
        short = [self.case("short", self.tokens(length)) for length in (33, 48, 49, 62, 63)]
        first = fresh + pairs + [case for case, _ in warm] + short
        self.random.shuffle(first)
        parents = [case for case in fresh if 320 <= len(case.ask.prompt) <= 1600]
        both = [self.extended("both hit", self.random.choice(parents), cut) for cut in CUTS * 2]
        decode_only = [self.extended("decode hit", case, len(case.ask.prompt)) for case in short * 2]
        repeats = [self.repeated(case) for case in self.random.sample(fresh, 5)]
        second = both + decode_only + repeats
        self.random.shuffle(second)
        return Plan(tuple(ask for _, ask in warm), tuple(first), tuple(second))

    def tokens(self, length: int) -> tuple[int, ...]:
        return tuple(self.random.choices(VOCABULARY, k=length))

    def lengths(self, count: int, shortest: int = 24, longest: int = 1500) -> list[int]:
        """Spread evenly over the orders of magnitude."""
        low, high = math.log(shortest), math.log(longest)
        return [round(math.exp(self.random.uniform(low, high))) for _ in range(count)]

    def case(self, what: str, prompt: tuple[int, ...], decode: int = 0, prefill: int = 0, n: int = 1) -> Case:
        return Case(f"{what}, {len(prompt)} tokens", Ask(prompt, self.salt, n=n), decode, prefill)

    def warm(self, length: int, cut: int) -> tuple[Case, Ask]:
        prompt = self.tokens(length)
        case = self.case(f"prefill hit of {cut}", prompt, prefill=whole_blocks(cut))
        return case, Ask(prompt[:cut], self.salt, max_tokens=1)

    def extended(self, what: str, parent: Case, cut: int) -> Case:
        prompt = parent.ask.prompt[:cut] + self.tokens(self.random.randrange(BLOCK, 700))
        cached = whole_blocks(cut)
        return self.case(f"{what} of {cut}", prompt, decode=cached, prefill=0 if what == "decode hit" else cached)

    def repeated(self, parent: Case) -> Case:
        prompt = parent.ask.prompt
        return self.case("repeated", prompt, decode=whole_blocks(len(prompt) - 1))
