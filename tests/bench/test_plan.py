"""Contenders take turns, and goals compare what they measured."""

from collections.abc import Callable

import pytest

from bench.plan import Contender, Figures, Goal, Options, by_subject, ratio, take_turns, typical


def recording(name: str, order: list[str]) -> Callable[[], Figures]:
    def run() -> Figures:
        order.append(name)
        return {"rate": float(len(order))}

    return run


def test_each_round_begins_with_another_contender() -> None:
    order: list[str] = []
    contenders = [Contender(name, recording(name, order)) for name in "abc"]
    results = take_turns(contenders, 3, lambda line: None)
    assert "".join(order) == "abcbcacab"
    assert list(results) == ["a", "b", "c"]
    assert [figures["rate"] for figures in results["a"]] == [1, 6, 8]


def test_who_cannot_run_is_named_with_the_reason_and_left_out() -> None:
    lines: list[str] = []
    contenders = [
        Contender("ours", lambda: {"rate": 1.0}),
        Contender("rival", lambda: {"rate": 1.0}, lambda: "django is not installed"),
    ]
    assert list(take_turns(contenders, 1, lines.append)) == ["ours"]
    assert "left out: rival: django is not installed" in lines


def test_a_broken_promise_ends_the_measurement() -> None:
    def run() -> Figures:
        raise AssertionError("a coin is lost")

    with pytest.raises(AssertionError, match="a coin is lost"):
        take_turns([Contender("ours", run)], 5, lambda line: None)


def test_a_goal_compares_the_medians_of_the_same_rounds() -> None:
    results = {"ours": [{"rate": 10.0}, {"rate": 30.0}], "rival": [{"rate": 5.0}, {"rate": 10.0}]}
    goal = Goal("at least 2 × the rival", ratio("ours", "rival", "rate"), least=2)
    assert goal.value(results) == 2.5
    assert goal.is_met(2.5) and not goal.is_met(1.9)
    assert typical("ours", "rate")(results) == 20
    assert Goal("at most", typical("ours", "rate"), most=20).is_met(20)


def test_a_goal_without_its_contender_has_no_value() -> None:
    with pytest.raises(KeyError):
        ratio("ours", "rival", "rate")({"ours": [{"rate": 1.0}]})


def test_figures_of_several_subjects_become_lines() -> None:
    assert by_subject({"ours": [{"a sweep|few": 1, "a sweep|many": 2, "a claim|few": 3}]}) == {
        "a sweep": [{"few": 1, "many": 2}],
        "a claim": [{"few": 3}],
    }


def test_quick_sizes_are_used_on_request() -> None:
    assert Options().pick(1000, 10) == 1000
    assert Options(quick=True).pick(1000, 10) == 10
