"""The protocol as a program: it is checked here, can fail, and takes the same steps as the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.acceptance import commit_protocol_model as model
from tests.protocol.fleet import Fleet, Write, has_decided, holds_the_lock, writes_metadata, writes_tar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloud_optimized_dicom.testing.intercepting_store import Operation
    from tests.protocol.fleet import Stall

    NewFleet = Callable[[], Fleet]

PROGRAM = Path(model.__file__)

DISASTERS = {  # rule: the cheapest run that shows what it is good for
    "carry": ("fields-overwrite", "--faults", "1"),
    "finish": ("first-first", "--faults", "0"),
    "stage": ("first-first", "--faults", "0"),
    "first": ("first-first", "--faults", "1"),
    "clear": ("first-first", "--faults", "0"),
    "sweep": ("first-first", "--faults", "1"),
    "log": ("first-first", "--faults", "2", "--no-reader"),
    "base": ("append-remove", "--faults", "0"),
}


def check(config: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the model on one configuration."""
    command = [sys.executable, str(PROGRAM), "--config", config, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def assert_no_violation(config: str, *options: str) -> int:
    """Run the model, which must find nothing; return how many states it saw."""
    done = check(config, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.match(rf"{config}: (\d+) states, .* no violation; at most 0 orphans", done.stdout)
    assert match is not None, done.stdout
    assert "reader gave up" not in done.stdout
    assert "ConflictError" not in done.stdout
    assert "STOPPED EARLY" not in done.stdout
    return int(match[1])


@pytest.mark.parametrize("config", model.CONFIGS)
def test_model_with_one_fault(config: str) -> None:
    """Every interleaving of the writers and a reader with any one fault keeps every invariant."""
    assert assert_no_violation(config, "--faults", "1") > 40_000


LARGEST = ["append-append", "append-overwrite", "same-append", "three-first", "three-writers", "append-remove"]
"""Minutes each: CI has thirty for everything."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=pytest.mark.exhaustive if name in LARGEST else ()) for name in model.CONFIGS]
)
def test_model_with_two_faults(config: str) -> None:
    """Every interleaving of the writers and a reader with any two faults keeps every invariant (up to 15 M states)."""
    assert assert_no_violation(config, "--faults", "2") > 700_000


@pytest.mark.parametrize("rule", DISASTERS)
def test_model_can_fail(rule: str) -> None:
    """Leaving out a rule of the protocol ends in a violation, and the model shows the way there."""
    done = check(*DISASTERS[rule], "--without", rule)
    assert done.returncode == 1, done.stdout
    assert "VIOLATIONS" in done.stdout
    assert re.search(r"I[1-5]: .*shortest trace", done.stdout)


def test_model_misses_the_intent_rule() -> None:
    """Leaving out the intent in the reader's rule makes readers give up, which they never do otherwise."""
    done = check("append-remove", "--faults", "0", "--without", "intent")
    assert re.search(r"reader gave up: \d+", done.stdout)
    assert sorted([*DISASTERS, "intent"]) == sorted(model.RULES)


# -- the steps of the code and those of the model


class Step(NamedTuple):
    """One step, in the words of both: what is done to which object."""

    verb: str
    thing: str


FOUND = Step("find expired", "lock")
OLD_BYTES = Step("read", "old bytes")

DEVIATIONS = {
    "list first": "The model finds the lock expired, then lists; the code lists, then finds it expired.  Both list "
    "before the conditional write, which is what counts.",
    "refused create": "The code finds a lock by a create that is refused and a read; the model just looks.",
    "own document": "The model's finish() reads the document in step 4; a writer that finishes its own commit has it "
    "in hand: the write names the version that it was read at, so a change in between is refused all the same.",
    "listed tar": "The model looks at T after M; the code has T from the list that it makes before it takes the lock, "
    "if M, read under the lock, names that very version, or if neither T was there nor M is.  Else it looks, as where "
    "it has finished a commit that moved T.",
    "old bytes": "The model's get of T yields its bytes; the code asks for its state, and reads what it needs of the "
    "bytes, pinned to that state, while it stages.",
    "copied store": "Before it finishes what another one decided, the code looks at M and T once more, to see whether "
    "the lock was copied here along with its series: beyond the model.  Where the intent was made for nothing, nothing "
    "can have been copied.",
    "pictures": "Whoever removes, overwrites or edits lists the objects once more, for pictures that a dead writer "
    "left of what goes: beyond the model, which knows no thumbnails.",
    "read back": "The model reads a refused write back to see whether it is its own; in the code the store's adapter "
    "does so, below the operations that are compared here.",
}
"""Where the code takes other steps on purpose, and why; everything else is equal, step by step."""


def steps_of_model(kind: str, uid: str, store: Any, me: str = "A") -> list[Step]:
    """Drive the model's writer to its end, without faults."""
    process = model.writer(me, kind, uid, frozenset(model.RULES))
    steps: list[Step] = []
    request = next(process)
    try:
        while True:
            if request[0] == "wait":
                answer = store.L
                steps += [FOUND] if answer else []
            elif request[0] == "choose":
                answer = False
            else:
                steps += to_steps(request)
                store, answer = model.execute(store, request)
            request = process.send(answer)
    except StopIteration as end:
        if end.value not in {"ok", "nothing to do"}:
            raise AssertionError(end.value) from end
    return steps


THINGS = {"M": "metadata", "T": "tar", "L": "lock"}


def to_steps(request: Any) -> list[Step]:
    """Return the steps that a request of the model stands for."""
    kind = request[0]
    if kind == "back":  # "read back"
        return []
    if kind in {"list", "put"}:
        return [Step("list" if kind == "list" else "create", "segments")]
    if kind == "drop":
        return [Step("delete", "segments")] * len(request[1])
    thing = THINGS[request[1]]
    verb = {"get": "look at" if thing == "tar" else "read", "concat": "concat", "delete": "delete"}.get(kind)
    return [Step(verb or ("create" if request[2] == model.NONE else "replace"), thing)]


def as_model_is_coded(steps: Sequence[Step], *, moves_tar_first: bool = False) -> list[Step]:
    """Return the model's steps with the deviations that leave steps out or change their order."""
    result = list(steps)
    look = [Step("read", "metadata"), Step("look at", "tar")]
    at = max((at for at in range(len(result)) if result[at : at + 2] == look), default=None)
    if at is not None and not moves_tar_first:  # "listed tar"
        del result[at + 1]
    if FOUND in result:  # "list first"
        result.remove(FOUND)
        result.insert(1, FOUND)
    decided = max((at for at, step in enumerate(result) if step == Step("replace", "lock")), default=len(result))
    own = [at for at, step in enumerate(result) if step == Step("read", "metadata") and at > decided]
    for at in reversed(own):  # "own document"
        del result[at]
    return result


def steps_of_code(
    fleet: Fleet, operations: Sequence[Operation], *, made_for_something: bool, lists_pictures: bool
) -> list[Step]:
    """Return the operations of a recorded writer as steps, without those that the model has no word for."""
    steps = [step_of(fleet, operation) for operation in operations]
    steps = [step for step in steps if step != OLD_BYTES]
    lists = [at for at, step in enumerate(steps) if step == Step("list", "segments")]
    if lists_pictures:  # "pictures"
        assert len(lists) == 2
        assert Step("create", "lock") in steps[: lists[1]]
        del steps[lists[1]]
    refused = [Step("create", "lock"), Step("read", "lock")]
    if steps[1:3] == refused:  # "refused create"
        steps[1:3] = [FOUND]
        look = [Step("read", "metadata"), Step("look at", "tar")] if made_for_something else []
        at = steps.index(Step("replace", "lock")) + 1
        finishes = Step("replace", "lock") in steps[at : steps.index(Step("create", "segments"))]
        if finishes:  # "copied store"
            assert steps[at : at + len(look)] == look
            del steps[at : at + len(look)]
    return steps


def step_of(fleet: Fleet, operation: Operation) -> Step:
    """Return one operation as a step."""
    key = fleet.files.key
    if operation.name.startswith(key.pending) or operation.kind == "list":
        return Step(operation.kind, "segments")
    thing = {key.metadata: "metadata", key.tar: "tar", key.lock: "lock"}[operation.name]
    if operation.kind in {"read", "iter_chunks"}:
        return OLD_BYTES
    return Step({"read_object": "read", "stat": "look at"}.get(operation.kind, operation.kind), thing)


def model_store(uids: str) -> Any:
    """Return the model's store with a series of these instances, or an empty one."""
    checker = model.Checker("three-first" if not uids else "append-append", frozenset(model.RULES), 0, readers=False)
    assert not uids or uids == "xy"
    return checker.stores[checker.init[0]]


KINDS: dict[str, tuple[Write, str, str, str]] = {  # name: our change, its kind and UID in the model, the series before
    "append": (Write("append", 3), "append", "a", "xy"),
    "append of what is there": (Write("append", 0), "append", "x", "xy"),
    "overwrite": (Write("overwrite", 0, version=1), "overwrite", "x", "xy"),
    "edit": (Write("edit", 0, version=1), "overwrite", "x", "xy"),
    "remove": (Write("remove", 0), "remove", "x", "xy"),
    "custom field": (Write("field", 1, version=1), "fields", "", "xy"),
    "first write": (Write("append", 0), "append", "a", ""),
    "first overwrite": (Write("overwrite", 0), "overwrite", "b", ""),
    "first custom field": (Write("field", 1, version=1), "fields", "", ""),
}


@pytest.mark.parametrize("kind", KINDS)
def test_code_takes_the_steps_of_the_model(memory_fleet: NewFleet, kind: str) -> None:
    """A commit of each kind asks the store for exactly what the model's writer asks for, in its order."""
    write, kind_there, uid, before = KINDS[kind]
    fleet = memory_fleet()
    if before:
        fleet.do(Write("fill"))
    writer = fleet.join(write)
    assert writer.run() == "ok"
    expected = as_model_is_coded(steps_of_model(kind_there, uid, model_store(before)))
    lists_pictures = bool(before) and write.kind in {"remove", "overwrite", "edit"}
    found = steps_of_code(fleet, writer.operations, made_for_something=bool(before), lists_pictures=lists_pictures)
    assert found == expected


MODEL_STALLS: dict[str, tuple[Stall, Callable[[Any], bool]]] = {  # a death: in the code, and in the model
    "holding the lock": (holds_the_lock, lambda op: op == ("get", "M")),
    "with its bytes up": (
        lambda _, asked: asked[-1].kind == "replace",
        lambda op: op[0] == "write" and op[1] == "L" and op[2] != model.NONE,
    ),
    "decided": (has_decided, lambda op: op[0] == "concat"),
    "before the tar": (writes_tar, lambda op: op[0] == "concat"),
    "between tar and metadata": (writes_metadata, lambda op: op[:2] == ("write", "M")),
}


def die(store: Any, uid: str, dies_before: Callable[[Any], bool]) -> Any:
    """Return the model's store after an appending writer died before one of its requests."""
    process = model.writer("D", "append", uid, frozenset(model.RULES))
    request = next(process)
    while not dies_before(request):
        if request[0] in {"wait", "choose"}:
            answer: Any = None if request[0] == "wait" else False
        else:
            store, answer = model.execute(store, request)
        request = process.send(answer)
    return store


@pytest.mark.parametrize("death", MODEL_STALLS)
@pytest.mark.parametrize("before", ["xy", ""])
def test_code_recovers_by_the_steps_of_the_model(memory_fleet: NewFleet, death: str, before: str) -> None:
    """Taking over from a writer that died at any step asks for exactly what the model's successor asks for."""
    stall, dies_before = MODEL_STALLS[death]
    fleet = memory_fleet()
    if before:
        fleet.do(Write("fill"))
    assert fleet.join(Write("append", 3), stall).start()
    successor = fleet.take_over(Write("append", 4))
    assert successor.run() == "ok"
    there = die(model_store(before), "a", dies_before)
    moves_tar = death in {"decided", "before the tar"}
    expected = as_model_is_coded(steps_of_model("append", "b", there, me="B"), moves_tar_first=moves_tar)
    found = steps_of_code(fleet, successor.operations, made_for_something=bool(before), lists_pictures=False)
    assert found == expected


def test_every_deviation_has_its_reason() -> None:
    """The table of deviations names those that this module's mappings make."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(reason.endswith(".") for reason in DEVIATIONS.values())
    for name in DEVIATIONS.keys() - {"old bytes"}:
        assert f'# "{name}"' in source
