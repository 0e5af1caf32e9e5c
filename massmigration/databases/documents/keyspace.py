"""Where a key of a document store lies among all keys it could be: a number that rises in the order of the store.

Datastore and Firestore have no statistics and cannot skip rows cheaply, so ranges are found by asking for the first
keys after a made-up one. A keyspace makes such keys up. Its numbers only guide the search; the bounds that come out of
it are put through ``keep_rising``, because a pair of bounds in the wrong order would have rows visited twice.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, ClassVar, Final

from massmigration.databases.keys import KeyCodec

HIGHEST_INTEGER: Final = 2**63 - 1
LOWEST_INTEGER: Final = -(2**63)
HIGHEST_UUID: Final = 2**128 - 1

TEXT_DEPTH: Final = 40  # characters of a string that take part; keys that differ only after them lie at one place
WIDTH: Final = 8  # how much wider a character is that keys may have than one that the store was seen to skip

_CLASSES: Final = ("0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class KeySpace(ABC):
    """The numbers of one type of key.

    Attributes:
        highest: The largest number.
        is_open: Whether there may be keys after the key of the largest number.
    """

    highest: int
    is_open: ClassVar[bool] = False

    def learn(self, keys: Sequence[Any], after: Any = None) -> None:  # noqa: B027  (only strings have something to learn)
        """Learn from what the store has given; numbers asked for before are void.

        Args:
            keys: Keys that follow one another in the store, with no other in between.
            after: A key after which the first of them comes next.
        """

    @abstractmethod
    def get_position(self, key: Any) -> int:
        """Return the number of a key."""

    @abstractmethod
    def get_key(self, position: int) -> Any:
        """Return the key of a number, or one before it; None if the store would refuse that key in a filter."""

    def keep_rising(self, keys: Iterable[Any], after: Any = None, upto: Any = None) -> list[Any]:
        """Return those of these keys that certainly rise in the store, between ``after`` and ``upto``.

        Args:
            keys: Keys; what does not lie after the last one that was kept is left out.
            after: A key that all of them have to be greater than; None is open.
            upto: A key that all of them have to be smaller than; None is open.
        """
        kept: list[Any] = []
        last = None if after is None else self.get_orders(after)
        end = None if upto is None else self.get_orders(upto)
        for key in keys:
            orders = self.get_orders(key)
            if (last is None or _is_less(last, orders)) and (end is None or _is_less(orders, end)):
                kept.append(key)
                last = orders
        return kept

    def get_orders(self, key: Any) -> tuple[Any, ...]:
        """Return what a key is compared by, one value for each order that the store may follow."""
        return (self.get_position(key),)


def _is_less(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(mine < theirs for mine, theirs in zip(one, other, strict=True))


class Integers(KeySpace):
    """Integers of 64 bits, in the order of their values: Datastore's numeric ids."""

    highest = HIGHEST_INTEGER

    def get_position(self, key: Any) -> int:
        """Return the key itself."""
        return int(key)

    def get_key(self, position: int) -> Any:
        """Return the number itself. It is never 0, which no row has and which the connectors do not accept as a key."""
        return max(LOWEST_INTEGER, min(position, HIGHEST_INTEGER)) or -1


class PaddedIntegers(KeySpace):
    """Integers that are stored as text with leading zeros: Firestore's, where -1 comes before -2, and both before 1."""

    highest = HIGHEST_INTEGER
    _offset = 2**64

    def get_position(self, key: Any) -> int:
        """Return the key, or for a negative one a number that is far below and rises as the key falls."""
        return int(key) if key > 0 else -int(key) - self._offset

    def get_key(self, position: int) -> Any:
        """Return the key; in the gap between -(2 ** 63) and 1 there is none, so that is what comes before it."""
        if position > 0:
            return min(position, HIGHEST_INTEGER)
        return max(LOWEST_INTEGER, min(-(position + self._offset), -1))


class Uuids(KeySpace):
    """UUIDs, which the connectors store as 32 hexadecimal digits: text in the order of the numbers."""

    highest = HIGHEST_UUID

    def get_position(self, key: Any) -> int:
        """Return the UUID's number."""
        return int(key.int)

    def get_key(self, position: int) -> Any:
        """Return the UUID of a number."""
        return uuid.UUID(int=max(0, min(position, HIGHEST_UUID)))


class _Scale:
    """The characters at one depth of strings, side by side: ``places`` tells where each begins and how wide it is."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.skipped: set[str] = set()
        self.arrange()

    def skip(self, above: str, below: str) -> None:
        """Learn that no key was found between two characters; the empty string is open."""
        known = self.places.keys() - self.seen - self.skipped
        self.skipped.update(character for character in known if above < character and (not below or character < below))

    def arrange(self) -> None:
        """Give each character its place."""
        known = self.seen.union(*(members for members in _CLASSES if not self.seen.isdisjoint(members)))
        self.total = 1  # what comes first is the end of the string
        self.places: dict[str, tuple[int, int]] = {}
        for character in sorted(known):
            width = 1 if character in self.skipped and character not in self.seen else WIDTH
            self.places[character] = self.total, width
            self.total += width
        self._characters = ["", *self.places]
        self._starts = [0, *(start for start, _ in self.places.values())]

    def find(self, place: int) -> tuple[str, int, int]:
        """Return the character at a place, where it begins, and how wide it is."""
        character = self._characters[bisect_right(self._starts, place) - 1]
        return character, *self.places.get(character, (0, 1))


class Texts(KeySpace):
    """Strings, read as numbers whose digits are the characters that were seen at each depth.

    With all of Unicode as digits nearly every number would lie in a gap: keys like ``user-000417`` differ in six
    places, by ten characters. A character brings its whole class (digits, small or capital letters), but what the store
    is seen to skip gets little room: the letters after f in hexadecimal numbers.
    """

    is_open = True

    def __init__(self) -> None:
        self._scales: list[_Scale] = []
        self.highest = 0

    def learn(self, keys: Sequence[Any], after: Any = None) -> None:
        """Take the characters of these keys as digits, too, and those for little that lie between them."""
        for key in keys:
            for depth, character in enumerate(key[:TEXT_DEPTH]):
                if depth == len(self._scales):
                    self._scales.append(_Scale())
                self._scales[depth].seen.add(character)
        for scale in self._scales:
            scale.arrange()
        for one, other in pairwise(keys if after is None else [after, *keys]):
            self._learn_gap(one[:TEXT_DEPTH], other[:TEXT_DEPTH])
        for scale in self._scales:
            scale.arrange()
        self.highest = prod(scale.total for scale in self._scales) - 1

    def _learn_gap(self, one: str, other: str) -> None:
        shorter = min(len(one), len(other))
        depth = next((depth for depth in range(shorter) if one[depth] != other[depth]), shorter)
        if depth < shorter:
            self._scales[depth].skip(one[depth], other[depth])
        if depth + 1 < len(one):
            self._scales[depth + 1].skip(one[depth + 1], "")
        if depth + 1 < len(other):
            self._scales[depth + 1].skip("", other[depth + 1])

    def get_position(self, key: Any) -> int:
        """Return the number that the string's first characters make."""
        position, unit = 0, self.highest + 1
        for character, scale in zip(key, self._scales, strict=False):
            unit //= scale.total
            start, width = scale.places.get(character, (0, 1))
            position += start * unit
            unit *= width
        return position

    def get_key(self, position: int) -> Any:
        """Return the string of a number, up to its first digit that stands for the end."""
        text = ""
        rest, unit = max(0, min(position, self.highest)), self.highest + 1
        for scale in self._scales:
            unit //= scale.total
            character, start, width = scale.find(rest // unit)
            if not character:
                break
            text += character
            rest -= start * unit
            unit *= width
        # https://firebase.google.com/docs/firestore/quotas#collections_documents_and_fields
        return None if text in ("", ".", "..") or text.startswith("__") else text

    def get_orders(self, key: Any) -> tuple[Any, ...]:
        """Return the text in UTF-8, the documented order, and in UTF-16, which Datastore's emulator follows."""
        return key.encode("utf-8", "surrogatepass"), key.encode("utf-16-be", "surrogatepass")


def get_keyspace(codec: KeyCodec, *, pads_integers: bool) -> KeySpace | None:
    """Return the keyspace of a model's keys; None for keys that cannot be made up.

    Args:
        codec: The model's codec.
        pads_integers: Whether the store keeps integers as text.
    """
    if codec.is_composite or not codec.is_plain:
        return None
    integers = PaddedIntegers if pads_integers else Integers
    spaces: dict[str, type[KeySpace]] = {"integer": integers, "UUID": Uuids, "string": Texts}
    space = spaces.get(codec.types[0].name)
    return None if space is None else space()
