"""Champion, challenger and previous: promotions and rollbacks, also when they die half-way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.finding import Finding
from pipelines.release.aliases import aliases_of, find_alias, promote, promote_by_hand, rollback, versions_of
from pipelines.release.gate import RULES, GateVerdict
from pipelines.release.model import Release, Scores
from pipelines.release.registry import record
from pipelines.release.tags import CHALLENGER, CHAMPION, PREVIOUS
from pipelines.tracking import Tracking

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
from mlflow import MlflowClient

from tests.support.releases import aliases, crown, judged, put, scored

pytestmark = pytest.mark.usefixtures("nothing_is_left_outside_the_store")


def test_newer_code_for_the_same_weights_is_a_version_and_leaves_the_previous_champion(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.80))
    crown(store, name, encoders[1], scored(0.82))
    monkeypatch.setattr("pipelines.versions.RELEASE", "newer")
    assert crown(store, name, encoders[1], scored(0.82)).version == 3
    assert aliases(store, name) == {CHAMPION: 3, PREVIOUS: 1}
    with pytest.raises(ValueError, match=r"/2 was champion before \(replaced as champion by version 3"):
        promote(versions_of(name=name, tracking=store)[1], tracking=store)
    assert rollback(to=2, why="the newer code is slow", name=name, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}
    assert rollback(why="wrong gains", name=name, tracking=store).version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2}


def test_newer_code_does_not_bring_back_weights_that_were_rolled_back(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.80))
    crown(store, name, encoders[1], scored(0.82))
    rollback(why="wrong gains", name=name, tracking=store)
    monkeypatch.setattr("pipelines.versions.RELEASE", "newer")
    with pytest.raises(ValueError, match=r"/2 was champion before .*wrong gains.*ecg rollback"):
        crown(store, name, encoders[1], scored(0.82))
    assert rollback(to=3, why="the gains were the code's", name=name, tracking=store).version == 3
    assert aliases(store, name) == {CHAMPION: 3, PREVIOUS: 1}


def test_a_verdict_is_written_down_and_moves_the_aliases(store: Tracking, encoders: list[Path], name: str) -> None:
    first = crown(store, name, encoders[0], scored(0.80))
    assert aliases(store, name) == {CHAMPION: 1}
    refused = judged(store, put(store, name, encoders[1], scored(0.78)), holds=False, against=1)
    with pytest.raises(ValueError, match=r"/2 has not passed the gate: kept as challenger: not_worse"):
        promote(refused, tracking=store)
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    crown(store, name, encoders[2], scored(0.795))
    assert aliases(store, name) == aliases_of(name=name, tracking=store) == {CHAMPION: 3, PREVIOUS: 1}

    newest, second, oldest = versions_of(name=name, tracking=store)
    assert [newest.version, second.version, oldest.version] == [3, 2, 1]
    assert oldest.tags["verdict"] == first.tags["verdict"] == "promoted: not_worse was looked at"
    assert second.verdict is not None
    assert not second.verdict.promote
    assert [what.partition(":")[0] for what in oldest.moves.values()] == [
        "champion",
        "replaced as champion by version 3",
    ]
    assert (list(second.moves), len(newest.moves)) == ([], 1)
    page = store.client().get_model_version(name, "2").description
    assert page is not None
    assert page.startswith("Did not pass the gate, and stays a challenger.")
    assert "**Kept as challenger.** Against version 1." in page


def test_only_what_passed_against_the_champion_there_is_is_promoted(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    with pytest.raises(ValueError, match=r"/1 has not passed the gate: not judged"):
        promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    stale = judged(store, put(store, name, encoders[1], scored(0.9)), against=None)
    crown(store, name, encoders[0], scored(0.8))
    with pytest.raises(ValueError, match="judged against version None, and version 1 is champion now: judge it again"):
        promote(stale, tracking=store)
    assert aliases(store, name) == {CHAMPION: 1}


def test_a_challenger_that_was_refused_stays_one_when_it_is_released_again(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    judged(store, put(store, name, encoders[1], scored(0.7)), holds=False, against=1)
    put(store, name, encoders[1], scored(0.7))
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}
    again = promote(put(store, name, encoders[0], scored(0.8)), tracking=store)
    assert again.version == 1, "the champion is told to be what it is"
    assert aliases(store, name) == {CHAMPION: 1, CHALLENGER: 2}


def test_a_person_makes_a_challenger_champion_and_who_and_why_are_written_on_both(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    crown(store, name, encoders[0], scored(0.80))
    refused = {rule: Finding(rule not in ("not_worse", "not_collapsed"), "seen") for rule in RULES}
    record(put(store, name, encoders[1], scored(0.83)), GateVerdict(against=1, rules=refused), tracking=store)
    moved = promote_by_hand(why="better on ward 7", by="Dr. Weber", name=name, tracking=store)
    assert moved.version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}
    newest, oldest = versions_of(name=name, tracking=store)
    assert list(newest.moves.values()) == ["champion: promoted by hand by Dr. Weber: better on ward 7"]
    assert list(oldest.moves.values())[-1].endswith("version 2: promoted by hand by Dr. Weber: better on ward 7")
    page = store.client().get_model_version(name, "2").description or ""
    assert page.startswith("Made champion by hand, though it did not pass the gate.")
    again = promote_by_hand(version=2, why="once more", by="x", name=name, tracking=store)
    assert len(again.moves) == 1, "nothing moves"
    with pytest.raises(ValueError, match=rf"/1 was champion before: `ecg rollback 1 --name {name}` goes back"):
        promote_by_hand(version=1, why="back", by="x", name=name, tracking=store)
    assert rollback(why="worse after all", name=name, tracking=store).version == 1
    assert not find(PREVIOUS, name, store).by_hand


def test_what_a_person_cannot_promote_is_said(store: Tracking, encoders: list[Path], name: str) -> None:
    def by_hand(why: str = "a test", version: int | None = None) -> None:
        promote_by_hand(version=version, why=why, by="x", name=name, tracking=store)

    with pytest.raises(ValueError, match=f"{name} has no challenger at"):
        by_hand()
    with pytest.raises(ValueError, match=f"{name} has no version at"):
        by_hand(version=1)
    put(store, name, encoders[0], scored(0.80))
    with pytest.raises(ValueError, match="/1 was not judged: the gate has to see first that it is served right"):
        by_hand()
    judged(store, find(CHALLENGER, name, store), holds=False)
    with pytest.raises(ValueError, match=r"/1 is not made champion by hand either: serves: serves was looked at$"):
        by_hand()
    with pytest.raises(ValueError, match=f"version 2 of {name}: use one of 1$"):
        by_hand(version=2)
    for why in (" ", "x" * 1001):
        with pytest.raises(ValueError, match="why: give the reason in 1 to 1,000 characters"):
            by_hand(why)
    assert aliases(store, name) == {CHALLENGER: 1}


def find(alias: str, name: str, store: Tracking) -> Release:
    release = find_alias(alias, name=name, tracking=store)
    assert release is not None
    return release


def test_going_back_swaps_the_champion_with_the_previous_and_says_why(
    store: Tracking, encoders: list[Path], name: str
) -> None:
    with pytest.raises(ValueError, match="has no champion"):
        rollback(why="x", name=name, tracking=store)
    crown(store, name, encoders[0], scored(0.80))
    with pytest.raises(ValueError, match="has no previous champion: name a version"):
        rollback(why="x", name=name, tracking=store)
    crown(store, name, encoders[1], scored(0.82))
    put(store, name, encoders[2], scored(0.81))
    now = rollback(why="wrong gains since Monday", name=name, tracking=store)
    assert now.version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2, CHALLENGER: 3}
    assert list(now.moves.values())[-1] == "champion: rolled back from version 2: wrong gains since Monday"
    for wrong, message in ((1, "is the champion already"), (3, "was never champion"), (9, "use one of 1, 2, 3")):
        with pytest.raises(ValueError, match=message):
            rollback(to=wrong, why="x", name=name, tracking=store)
    passed = next(version for version in versions_of(name=name, tracking=store) if version.version == 2)
    assert passed.verdict is not None
    assert passed.verdict.promote
    with pytest.raises(ValueError, match=r"was champion before .*ecg rollback"):
        promote(passed, tracking=store)  # its verdict stands, and names the champion that there is
    assert rollback(to=2, why="it was the hospital", name=name, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1, CHALLENGER: 3}
    store.client().delete_registered_model_alias(name, CHAMPION)  # by hand, in MLflow's UI
    with pytest.raises(ValueError, match="has no champion"):
        rollback(why="x", name=name, tracking=store)
    assert rollback(to=2, why="it was deleted", name=name, tracking=store).version == 2


MOVES = (
    "set_registered_model_tag",
    "set_model_version_tag",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "delete_registered_model_tag",
)
"""What a promotion does in MLflow, in order."""
BACK = tuple(step for step in MOVES if step != "delete_registered_model_alias")  # there is no challenger to drop


def dying(patch: pytest.MonkeyPatch, at: int, moves: tuple[str, ...]) -> None:
    """The process dies before this step of a move."""
    done: list[str] = []

    def step(called: str) -> Callable[..., Any]:
        whole = getattr(MlflowClient, called)

        def do(*given: Any) -> Any:
            if len(done) == at:
                raise KeyboardInterrupt
            done.append(called)
            assert done == list(moves[: len(done)])
            return whole(*given)

        return do

    for called in set(MOVES):
        patch.setattr(MlflowClient, called, step(called))


@pytest.mark.parametrize("at", range(len(MOVES)))
def test_a_promotion_that_died_half_way_is_ended_by_the_next_call(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    challenger = judged(store, put(store, name, encoders[1], scored(0.9)), against=1)
    with monkeypatch.context() as patch:
        dying(patch, at, MOVES)
        with pytest.raises(KeyboardInterrupt):
            promote(challenger, tracking=store)
    again = put(store, name, encoders[1], scored(0.9))  # as the gate does, which ends what was begun
    assert len(again.moves) == (0 if at == 0 else 1)
    assert promote(again, tracking=store).version == 2
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 1}
    first, second = (list(version.moves.values()) for version in reversed(versions_of(name=name, tracking=store)))
    assert [move.split(":")[0] for move in first] == ["champion", "replaced as champion by version 2"]
    assert [move.split(":")[0] for move in second] == ["champion"]


@pytest.mark.parametrize("at", range(len(BACK)))
def test_a_rollback_that_died_half_way_is_ended_by_the_next_and_not_turned_round(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    with monkeypatch.context() as patch:
        dying(patch, at, BACK)
        with pytest.raises(KeyboardInterrupt):
            rollback(why="wrong gains", name=name, tracking=store)
    assert rollback(why="wrong gains", name=name, tracking=store).version == 1
    assert aliases(store, name) == {CHAMPION: 1, PREVIOUS: 2}


def halfway(patch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """`meanwhile` happens in the next move, once it is written on the model and nothing else."""
    whole = MlflowClient.set_model_version_tag

    def do(*given: Any) -> None:
        patch.undo()
        meanwhile()
        whole(*given)

    patch.setattr(MlflowClient, "set_model_version_tag", do)


def test_of_a_promotion_and_a_rollback_at_once_one_waits_for_the_other(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    challenger = judged(store, put(store, name, encoders[2], scored(0.9)), against=2)
    began: list[Future[Release]] = []
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:

        def meanwhile() -> None:
            began.append(pool.submit(rollback, why="wrong gains", name=name, tracking=store))
            with pytest.raises(TimeoutError):
                began[0].result(timeout=1.0)

        halfway(patch, meanwhile)
        assert promote(challenger, tracking=store).version == 3
        assert began[0].result(timeout=60).version == 2, "the champion before the one that was just made"
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 3}


def test_a_move_from_another_home_is_not_overwritten(
    store: Tracking, encoders: list[Path], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two homes on one store hold different locks."""
    other = Tracking(uri=store.uri, artifact_root=tmp_path / "home" / "artifacts")
    crown(store, name, encoders[0], scored(0.8))
    crown(store, name, encoders[1], scored(0.82))
    challenger = judged(store, put(store, name, encoders[2], scored(0.9)), against=2)
    with monkeypatch.context() as patch:
        halfway(patch, lambda: rollback(why="wrong gains", name=name, tracking=other))
        with pytest.raises(RuntimeError, match=f"moved the aliases of {name} meanwhile: look with `ecg models`"):
            promote(challenger, tracking=store)
    assert aliases(store, name) == {CHAMPION: 2, PREVIOUS: 3}, "as the rollback said"


def test_an_alias_that_is_not_there_is_none(store: Tracking, encoders: list[Path], name: str) -> None:
    assert find_alias(CHAMPION, name=name, tracking=store) is None
    put(store, name, encoders[0], Scores())
    assert find_alias(CHAMPION, name=name, tracking=store) is None
    challenger = find_alias(CHALLENGER, name=name, tracking=store)
    assert challenger is not None
    assert (challenger.model_uri, challenger.scores) == (f"models:/{name}/1", Scores())
