"""Finds out how the keys of a document store are spread, by a bounded number of looks at the first keys after a place.

Each look (a probe) reads a few keys. How close together they lie tells how many rows the stretch up to the next place
holds. Where two neighbouring places disagree, or too many rows may lie, the next probe cuts the stretch: so the probes
go where the rows are, however large the table is, and a stretch in which a probe finds nothing is finished.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, sqrt
from typing import Any, Final, NamedTuple

from massmigration.databases.documents.keys import StoreKeys
from massmigration.databases.documents.keyspace import KeySpace

PROBE_KEYS: Final = 64  # how many keys tell how close together keys lie, to about 12 %
SIMILAR: Final = 3.0  # densities that differ by less than this factor count as an even spread
FAR: Final = 4_096  # a stretch this many times longer than what was read of it is cut near that, not in the middle
EVEN_DOUBT: Final = 0.35  # the part of an even stretch's rows that may be elsewhere than the estimate says
TRUSTED_DOUBT: Final = 0.25  # a total of which a larger part is in doubt is not told


@dataclass(slots=True)
class Stretch:
    """The keys from one probe to the next.

    Attributes:
        after: Where it begins (not included); None is the beginning.
        upto: Where it ends (included); None is the end.
        keys: The first of its keys, in order.
        is_complete: Whether these are all.
        is_stuck: Whether it cannot be cut, because no key can be made up that lies in it.
    """

    after: Any
    upto: Any
    keys: list[Any]
    is_complete: bool
    is_stuck: bool = False


class Guess(NamedTuple):
    """What is thought of the part of a stretch that was not read.

    Attributes:
        begin: Position of the last key that was read.
        end: Position of the end.
        cut_at: Position at which the next probe would tell most.
        rows: About how many rows.
        doubt: How many of them may be missing, too many, or elsewhere.
        is_even: Whether the rows seem to be spread evenly.
    """

    begin: int
    end: int
    cut_at: int = 0
    rows: float = 0.0
    doubt: float = 0.0
    is_even: bool = True


class Survey:
    """What is known of how keys are spread; the first probe is made at once.

    Args:
        reader: The keys.
        space: The keyspace of their type.
        first_keys: How many keys the first probe reads; if there are fewer, all is known.
    """

    def __init__(self, reader: StoreKeys, space: KeySpace, first_keys: int = PROBE_KEYS) -> None:
        self.reader = reader
        self.space = space
        self.stretches = [self._probe(None, None, first_keys)]

    @property
    def is_complete(self) -> bool:
        """Whether every key was read."""
        return all(stretch.is_complete for stretch in self.stretches)

    @property
    def rows(self) -> int:
        """About how many rows there are; exactly how many if the survey is complete."""
        return self.keys_read + round(sum(guess.rows for guess in self._guess_all()))

    @property
    def keys_read(self) -> int:
        """How many keys were read: there are at least as many rows."""
        return sum(len(stretch.keys) for stretch in self.stretches)

    @property
    def is_trusted(self) -> bool:
        """Whether ``rows`` is good enough to be told."""
        return sum(guess.doubt for guess in self._guess_all() if not guess.is_even) <= TRUSTED_DOUBT * self.rows

    def refine(self, parts: int, limit: int) -> None:
        """Probe until the rows are known well enough to be divided.

        Args:
            parts: Into how many ranges they are divided.
            limit: How many probes at most.
        """
        for _ in range(limit):
            number = self._choose(parts)
            if number is None:
                return
            self._cut(number)

    def find_bounds(self, parts: int) -> list[Any]:
        """Return at most ``parts - 1`` rising keys that divide the rows equally. They need not exist."""
        guessed = [guess.rows for guess in self._guess_all()]
        total = self.keys_read + sum(guessed)
        targets = [total * number / parts for number in range(1, parts)]
        bounds: list[Any] = []
        before = 0.0
        for number, stretch in enumerate(self.stretches):
            known, rest = len(stretch.keys), guessed[number]
            while targets and targets[0] <= before + known + rest:
                bounds.append(self._find_key(number, targets.pop(0) - before, rest))
            before += known + rest
        found = [bound for bound in bounds if bound is not None]
        return self.space.keep_rising(found, self.reader.range.after, self.reader.range.upto)

    def _find_key(self, number: int, index: float, rest: float) -> Any:
        keys = self.stretches[number].keys
        if index <= len(keys) or not rest:
            return keys[max(0, round(index) - 1)] if keys else None
        guess = self._guess(number)
        share = round((index - len(keys)) / rest * 2**20)
        return self.space.get_key(guess.begin + (guess.end - guess.begin) * share // 2**20) or keys[-1]

    def _guess_all(self) -> list[Guess]:
        return [self._guess(number) for number in range(len(self.stretches))]

    def _choose(self, parts: int) -> int | None:
        """Return the number of the stretch that a probe would help most, or None if all is known well enough."""
        last = self.stretches[-1]
        if self._is_open_end(last) and not last.is_complete and not last.is_stuck:
            return len(self.stretches) - 1
        guesses = zip(self.stretches, self._guess_all(), strict=True)
        doubts = [0.0 if stretch.is_stuck else guess.doubt for stretch, guess in guesses]
        largest = max(doubts)
        return None if largest <= self.rows / (4 * parts) else doubts.index(largest)

    def _cut(self, number: int) -> None:
        stretch = self.stretches[number]
        # Before a probe is made there, nothing is known of what lies after all characters that were seen.
        position = self.space.highest if self._is_open_end(stretch) else self._guess(number).cut_at
        key = self.space.get_key(position)
        if key is None or not self.space.keep_rising([key], stretch.keys[-1], self._get_upto(stretch)):
            stretch.is_stuck = True
            return
        self.stretches.insert(number + 1, self._probe(key, stretch.upto, PROBE_KEYS))
        stretch.upto = key

    def _probe(self, after: Any, upto: Any, limit: int) -> Stretch:
        keys = self.reader.read(after, upto, limit)
        self.space.learn(keys, after)
        return Stretch(after, upto, keys, is_complete=len(keys) < limit)

    def _is_open_end(self, stretch: Stretch) -> bool:
        return self.space.is_open and self._get_upto(stretch) is None

    def _get_upto(self, stretch: Stretch) -> Any:
        return self.reader.range.upto if stretch.upto is None else stretch.upto

    def _get_end(self, stretch: Stretch) -> int:
        upto = self._get_upto(stretch)
        return self.space.highest if upto is None else self.space.get_position(upto)

    def _guess(self, number: int) -> Guess:
        """Guess the rest of a stretch from how close together keys lie at its beginning, and after its end."""
        stretch = self.stretches[number]
        if stretch.is_complete:
            return Guess(0, 0)
        begin, end = self.space.get_position(stretch.keys[-1]), self._get_end(stretch)
        width = max(0, end - begin)
        near_span = max(1, begin - self.space.get_position(stretch.keys[0]))
        near = (len(stretch.keys) - 1) / near_span
        from_begin = begin + (isqrt(near_span * width) if width > FAR * near_span else width // 2)
        if number == len(self.stretches) - 1:
            return Guess(begin, end, from_begin, near * width, near * width, is_even=False)
        following = self.stretches[number + 1]
        reach = self._get_end(following) if following.is_complete else self.space.get_position(following.keys[-1])
        far_span = max(1, reach - end)
        far = len(following.keys) / far_span
        from_end = end - (isqrt(far_span * width) if width > FAR * far_span else width // 2)
        if max(near, far) < SIMILAR * min(near, far):
            rows = (near + far) / 2 * width
            return Guess(begin, end, begin + width // 2, rows, EVEN_DOUBT * rows, is_even=True)
        rows = (sqrt(near * far) if far else near / 2) * width
        return Guess(begin, end, from_begin if near > far else from_end, rows, max(near, far) * width, is_even=False)
