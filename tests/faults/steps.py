"""The numbered steps of the engine, as one table, and the trap that kills a process in one of them.

A step is a function of the engine and the moment when it is called or returns, so that nothing of the engine is
replaced: the interpreter itself tells of each call.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

from massmigration import recorder
from massmigration.discovery.loader import get_loader
from massmigration.models import MigrationShard

PLAN, RANGE, FINISH = MigrationShard.PLAN, MigrationShard.RANGE, MigrationShard.FINISH
READY, RUNNING, DONE = MigrationShard.READY, MigrationShard.RUNNING, MigrationShard.DONE

KINDS = ("simple", "mapper", "saves", "batch", "custom")
BY_OBJECT = ("mapper", "saves", "custom")

ANYWHERE, QUEUE = "anywhere", "queue"


@dataclass(frozen=True)
class Left:
    """What a dead process has left behind.

    Attributes:
        status: Of the record.
        shards: Kind and status of each shard.
        processed: Objects that the shards count.
        visits: Visits that the rows count.
        tasks: Tasks on the queue.
    """

    status: str
    shards: tuple[tuple[str, str], ...]
    processed: int
    visits: int
    tasks: int

    def count(self, kind: str, status: str | None = None) -> int:
        """Return how many shards there are of a kind, in a status or in any."""
        return sum(one == kind and status in (None, other) for one, other in self.shards)


class Step(NamedTuple):
    """One step of the engine.

    Attributes:
        name: What it is called.
        place: Dotted path of a function, or ``"operation"`` for the author's.
        event: ``"call"`` or ``"return"``.
        left: Whether what a process leaves that dies here is what it has to leave.
        at: At which meeting it dies.
        when: Given the arguments and what is returned, whether this call is meant.
        transport: ``QUEUE`` for a step that only a run on a queue has.
        kinds: The kinds of migrations that have it.
        process: ``"start"`` for a step of the process that starts the run, else ``"work"``.
    """

    name: str
    place: str
    event: str
    left: Callable[[Left], bool]
    at: int = 1
    when: Callable[[Mapping[str, Any], Any], bool] = lambda arguments, result: True
    transport: str = ANYWHERE
    kinds: tuple[str, ...] = KINDS
    process: str = "work"


def _is_of(kind: str) -> Callable[[Mapping[str, Any], Any], bool]:
    return lambda arguments, result: bool(result) and arguments["shard"].kind == kind


def _is_move(action: str) -> Callable[[Mapping[str, Any], Any], bool]:
    return lambda arguments, result: bool(result) and arguments["action"] == action


def _moves_cursor(arguments: Mapping[str, Any], result: Any) -> bool:
    return "cursor" in arguments["fields"]


def _has_cursor(arguments: Mapping[str, Any], result: Any) -> bool:
    return result is not None and result.cursor is not None


def _ends_range(arguments: Mapping[str, Any], result: Any) -> bool:
    return bool(arguments["shard"].kind == RANGE)


def _visited_range(arguments: Mapping[str, Any], result: Any) -> bool:
    return result == "done" and arguments["self"].shard.kind == RANGE


def _is_for_range(arguments: Mapping[str, Any], result: Any) -> bool:
    return f"-{RANGE}-" in arguments["arguments"].get("shard_id", "")


def _is_planned(left: Left) -> bool:
    return left.status == "running" and left.count(PLAN, DONE) == 1 and left.count(RANGE) >= 1


def _is_unplanned(left: Left) -> bool:
    return left.status == "enqueued" and left.count(PLAN, RUNNING) == 1 and not left.count(RANGE)


def _is_at_work(left: Left) -> bool:
    return _is_planned(left) and left.count(RANGE, RUNNING) == 1


def _are_ranges_done(left: Left) -> bool:
    return _is_planned(left) and left.count(RANGE, DONE) == left.count(RANGE)


CLAIM = "massmigration.engine.leases.claim"
CLAIM_SHARD = "massmigration.recorder.holding.ShardRecorder.claim"
MOVE = "massmigration.recorder.records.move"
ADVANCE = "massmigration.recorder.holding.ShardRecorder.advance"
WORK = "massmigration.engine.batch.BatchRunner._work"
ENQUEUE = "tests.faults.queues.FolderBackend.enqueue"

STEPS = (
    Step(
        "start, before its commit",
        "massmigration.recorder.attempts.add_attempt",
        "return",
        lambda left: left.status == "not_run" and not left.shards,
        process="start",
    ),
    Step(
        "start, after its commit, before the first task is enqueued",
        ENQUEUE,
        "call",
        lambda left: left.status == "enqueued" and left.count(PLAN, READY) == 1 and left.tasks == 0,
        transport=QUEUE,
        process="start",
    ),
    Step(
        "start, after the first task is enqueued",
        ENQUEUE,
        "return",
        lambda left: left.status == "enqueued" and left.tasks == 1,
        transport=QUEUE,
        process="start",
    ),
    Step(
        "start, after all",
        "massmigration.executor.start.start",
        "return",
        lambda left: left.status == "enqueued" and left.count(PLAN, READY) == 1,
        process="start",
    ),
    Step("planning, after the lease", CLAIM, "return", _is_unplanned, when=_is_of(PLAN)),
    Step("planning, with the plan in hand", "massmigration.engine.planning._plan", "return", _is_unplanned),
    Step("planning, before its commit", MOVE, "return", _is_unplanned, when=_is_move("begin")),
    Step(
        "planning, after its commit",
        "massmigration.engine.planning.run_plan",
        "return",
        lambda left: _is_planned(left) and left.count(RANGE, READY) == left.count(RANGE),
    ),
    Step(
        "enqueue of a range, before it",
        ENQUEUE,
        "call",
        lambda left: _is_planned(left) and left.count(RANGE, READY) == left.count(RANGE) and left.tasks >= 2,
        when=_is_for_range,
        transport=QUEUE,
    ),
    Step(
        "enqueue of a range, after it",
        ENQUEUE,
        "return",
        lambda left: _is_planned(left) and left.count(RANGE, READY) == left.count(RANGE) and left.tasks >= 3,
        when=_is_for_range,
        transport=QUEUE,
    ),
    Step(
        "lease, before its commit",
        CLAIM_SHARD,
        "return",
        lambda left: _is_planned(left) and left.count(RANGE, READY) == left.count(RANGE),
        when=_is_of(RANGE),
    ),
    Step("lease, after its commit", CLAIM, "return", _is_at_work, when=_is_of(RANGE)),
    Step(
        "fetch, after it",
        "massmigration.engine.batch.BatchRunner.fetch",
        "return",
        lambda left: _is_at_work(left) and left.processed == 0,
        when=_has_cursor,
    ),
    Step("object, within the only call", "within", "return", _is_at_work, kinds=("simple",)),
    Step("object, after the first", "operation", "return", lambda left: _is_at_work(left) and left.processed == 0),
    Step(
        "object, after one in the middle",
        "operation",
        "return",
        lambda left: _is_at_work(left) and left.processed > 0,
        at=6,
        kinds=BY_OBJECT,
    ),
    Step(
        "commit of the first batch, before it",
        ADVANCE,
        "return",
        lambda left: _is_at_work(left) and left.processed == 0,
        when=_moves_cursor,
    ),
    Step(
        "commit of the first batch, after it",
        WORK,
        "return",
        lambda left: _is_at_work(left) and left.processed > 0,
        when=_has_cursor,
    ),
    Step(
        "commit of a later batch, before it",
        ADVANCE,
        "return",
        lambda left: _is_planned(left) and left.processed > 0,
        at=3,
        when=_moves_cursor,
        kinds=KINDS[1:],
    ),
    Step(
        "commit of a later batch, after it",
        WORK,
        "return",
        lambda left: _is_planned(left) and left.processed > 0,
        at=3,
        when=_has_cursor,
        kinds=KINDS[1:],
    ),
    Step(
        "time is up, shard handed back",
        "massmigration.engine.leases.release",
        "return",
        lambda left: _is_planned(left) and left.processed > 0 and not left.count(RANGE, RUNNING),
    ),
    Step(
        "enqueue of the next slice, before it",
        "massmigration.tasks._enqueue",
        "call",
        lambda left: left.processed > 0 and not left.count(RANGE, RUNNING),
        when=lambda arguments, result: arguments["shard"].processed > 0,
        transport=QUEUE,
    ),
    Step(
        "enqueue of the next slice, after it",
        "massmigration.tasks._enqueue",
        "return",
        lambda left: left.processed > 0 and not left.count(RANGE, RUNNING),
        when=lambda arguments, result: arguments["shard"].processed > 0,
        transport=QUEUE,
    ),
    Step(
        "range done, before its commit",
        "massmigration.recorder.holding.ShardRecorder.finish_shard",
        "return",
        lambda left: left.count(RANGE, DONE) == 0 and left.processed > 0,
        when=_ends_range,
    ),
    Step(
        "range done, after its commit",
        "massmigration.engine.slice.Slice.run",
        "return",
        lambda left: left.count(RANGE, DONE) == 1 and not left.count(FINISH),
        when=_visited_range,
    ),
    Step(
        "finish made, before its commit",
        "massmigration.recorder.making.ShardMaker.add_shards",
        "return",
        lambda left: _are_ranges_done(left) and not left.count(FINISH),
        when=lambda arguments, result: any(shard.kind == FINISH for shard in arguments["new"]),
    ),
    Step(
        "finish made, after its commit",
        "massmigration.engine.finish.make_finish_if_due",
        "return",
        lambda left: _are_ranges_done(left) and left.count(FINISH, READY) == 1,
        when=lambda arguments, result: bool(result),
    ),
    Step(
        "finishing, after the lease",
        CLAIM,
        "return",
        lambda left: left.status == "running" and left.count(FINISH, RUNNING) == 1,
        when=_is_of(FINISH),
    ),
    Step(
        "finishing, after verify()",
        "massmigration.definitions.base.WorkedMigration.verify",
        "return",
        lambda left: left.status == "running" and left.count(FINISH, RUNNING) == 1,
    ),
    Step(
        "finishing, before its commit",
        MOVE,
        "return",
        lambda left: left.status == "running" and left.count(FINISH, RUNNING) == 1,
        when=_is_move("finish"),
    ),
    Step(
        "finishing, after its commit",
        "massmigration.engine.finish.run_finish",
        "return",
        lambda left: left.status == "applied" and left.count(FINISH, DONE) == 1,
    ),
)

IN_TRANSACTION = {
    CLAIM_SHARD,
    MOVE,
    ADVANCE,
    "massmigration.recorder.attempts.add_attempt",
    "massmigration.recorder.making.ShardMaker.add_shards",
    "massmigration.recorder.holding.ShardRecorder.finish_shard",
}


def dies_in_transaction(step: Step) -> bool:
    """Return whether the database is left with a transaction whose client is dead."""
    return step.place in IN_TRANSACTION


BY_NAME = {step.name: step for step in STEPS}


def look(key: str, db_alias: str, visits: int, tasks: int) -> Left:
    """Return what the database holds now.

    Args:
        key: The migration's key.
        db_alias: The database.
        visits: The sum of all rows' counters.
        tasks: Tasks on the queue.
    """
    record = recorder.get_record(key, db_alias)
    shards = recorder.get_shards(record.attempt_uuid, db_alias) if record is not None else []
    return Left(
        status=record.status if record is not None else "not_run",
        shards=tuple((shard.kind, shard.status) for shard in shards),
        processed=sum(shard.processed for shard in shards),
        visits=visits,
        tasks=tasks,
    )


def lay_trap(name: str, at: int, met: Path) -> None:
    """Have this process kill itself in a step.

    Args:
        name: The step's name.
        at: At which meeting, if not at the step's own.
        met: A file to write the name to, just before.
    """
    step = BY_NAME[name]
    codes = _find_codes(step.place)
    is_within = step.place == "within"
    left_to_go = at or step.at

    def note(frame: FrameType, event: str, result: Any) -> None:
        nonlocal left_to_go
        if event != step.event:
            return
        code = frame.f_back.f_code if is_within and frame.f_back is not None else frame.f_code
        if code not in codes or (is_within and frame.f_code.co_name not in WRITERS):
            return
        if not step.when(frame.f_locals, result):
            return
        left_to_go -= 1
        if left_to_go == 0:
            met.write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(note)


WRITERS = ("update", "save")


def _find_codes(place: str) -> set[CodeType]:
    if place in ("operation", "within"):
        definitions = map(type, get_loader().migrations.values())
        return {definition.operation.__code__ for definition in definitions if hasattr(definition, "operation")}
    parts = place.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return {found.__code__}
    raise LookupError(f"There is no {place}.")
