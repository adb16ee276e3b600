"""`OnlineSuite`: what a backend of the online state must do. Subclass it with a fixture `online`, an empty store.

class TestMine(OnlineSuite):
    @pytest.fixture
    def online(self):
        yield MyOnline(...)
"""

import random
import threading
from typing import Any

import pytest

from fairway.data.segment import EventRow
from fairway.serve.online import Ask, Need, OnlineStore, Seen, Slot, entity_of, entity_text, known_of, unpack

NOW = 1_700_000_000_000_000
STOPS, LINES = Slot("trips", "stop"), Slot("trips", "line")


def event(key: str, at: int, *, known: int | None = None, stop: Any = "a", **data: Any) -> EventRow:
    """at, known: us from NOW."""
    row = {"trip": key, "stop": stop, "left_at": NOW + at, **data}
    return EventRow(key, NOW + at, row, NOW + (at if known is None else known))


def ask(at: int, *, stop: Any = "a", window: int = 1_000, last: bool = False, slot: Slot = STOPS) -> Ask:
    return Ask(slot, entity_text(stop), NOW + at - window, NOW + at, last)


def keys(online: OnlineStore, *asks: Ask) -> list[list[str]]:
    return [sorted(seen.key for seen in found) for found in online.read(asks)]


def by_hand(events: list[EventRow], question: Ask) -> list[str]:
    """The rule, spelled out."""
    seen = [
        e
        for e in events
        if entity_of(e, question.slot.column) == question.entity
        and question.since_us < e.at_us <= question.at_us
        and known_of(e) <= question.at_us
    ]
    newest = max((e.at_us for e in seen), default=0)
    return sorted(e.key for e in seen if not question.last or e.at_us == newest)


class OnlineSuite:
    """Needs a fixture `online`."""

    def test_an_entity_is_forgotten_by_any_column(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event("1", 0, line="7"), event("2", 1, line="8"), event("3", 2, stop="b", line="7")])
        assert online.forget(LINES, "7") == 2  # by a column that nobody looks up by
        assert keys(online, ask(5), ask(5, stop="b"), ask(5, last=True)) == [["2"], [], ["2"]]
        assert online.forget(STOPS, "a") == 1 and online.forget(STOPS, "a") == 0
        assert keys(online, ask(5), ask(5, last=True)) == [[], []]

    def test_what_is_put_is_read_as_it_was(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        data = {"km": 1.5, "n": 2**60, "ok": True, "none": None, "text": "naïve \u0001 \U0001f600", "xs": [1.0, 2.0]}
        assert online.put("trips", [event("t1", -5, known=-3, **data)]) == 1
        (found,) = online.read([ask(0)])
        assert [(s.key, s.at_us, s.known_us) for s in found] == [("t1", NOW - 5, NOW - 3)]
        assert isinstance(found[0], Seen)
        assert unpack(found[0].data) == {"trip": "t1", "stop": "a", "left_at": NOW - 5, **data}

    def test_a_window_is_open_at_its_start_and_closed_at_its_end(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event(f"t{at}", at) for at in (-1000, -999, 0, 1)])
        assert keys(online, ask(0), ask(1), ask(-2000), ask(0, stop="b")) == [["t-999", "t0"], ["t0", "t1"], [], []]

    def test_an_event_is_not_seen_before_it_was_known(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event("old", -50), event("late", -10, known=5)])
        assert keys(online, ask(0), ask(4), ask(5)) == [["old"], ["old"], ["late", "old"]]
        assert keys(online, ask(0, last=True), ask(4, last=True), ask(5, last=True)) == [["old"], ["old"], ["late"]]

    def test_the_last_event_is_the_last_of_its_time(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event("t1", -30), event("t3", -10), event("t2", -20), event("next", 40)])
        assert keys(online, ask(0, last=True), ask(-15, last=True), ask(99, last=True)) == [["t3"], ["t2"], ["next"]]
        assert keys(online, ask(0, last=True, window=10), ask(0, last=True, window=11)) == [[], ["t3"]]
        online.put("trips", [event("t4", -10), event("t5", -10, known=7)])
        assert keys(online, ask(0, last=True), ask(8, last=True)) == [["t3", "t4"], ["t3", "t4", "t5"]]

    def test_a_key_counts_once_and_the_first_stays(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        assert online.put("trips", [event("t1", -5, km=1.0), event("t1", -5, km=2.0)]) == 1
        assert online.put("trips", [event("t1", -7, km=3.0), event("t2", -6, km=4.0)]) == 1
        assert online.put("other", [event("t1", -5, km=5.0)]) == 1
        (found,) = online.read([ask(0)])
        assert sorted(unpack(s.data)["km"] for s in found) == [1.0, 4.0]

    def test_history_fills_gaps_and_gives_way_to_what_is_sent(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event("t1", -5, km=1.0)])
        assert online.put("trips", [event("t1", -5, km=9.0), event("t2", -4, km=2.0)], history=True) == 1
        assert online.put("trips", [event("t2", -3, known=50, stop="b", km=3.0)]) == 0
        assert online.put("trips", [event("t2", -2, stop="c")]) == 0
        assert keys(online, ask(60), ask(60, stop="b"), ask(49, stop="b"), ask(60, stop="c")) == [
            ["t1"],
            ["t2"],
            [],
            [],
        ]
        assert keys(online, ask(60, last=True), ask(60, stop="b", last=True)) == [["t1"], ["t2"]]

    def test_a_slot_that_comes_later_finds_what_is_there(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        online.put("trips", [event(f"t{i}", -i, line=i % 2) for i in range(1, 7)] + [event("none", -9, line=None)])
        online.watch([STOPS, LINES])
        assert keys(online, ask(0, stop=1, slot=LINES), ask(0, stop=0, slot=LINES, last=True)) == [
            ["t1", "t3", "t5"],
            ["t2"],
        ]
        online.put("trips", [event("t8", 0, line="1")])
        assert keys(online, ask(0, stop=1, slot=LINES, last=True)) == [["t8"]]

    def test_odd_names_stay_apart(self, online: OnlineStore) -> None:
        slots = [Slot("trips", "a:b"), Slot("trips", "a"), Slot("trips", "é 'x' \"y\" %s $1")]
        online.watch(slots)
        online.put("trips", [EventRow("k", NOW, {"a:b": "c", "a": "b:c", slots[2].column: "x\u0000'"}, NOW)])
        found = [
            Ask(slots[0], "c", 0, NOW, False),
            Ask(slots[1], "b:c", 0, NOW, False),
            Ask(slots[0], "b:c", 0, NOW, False),
        ]
        assert keys(online, *found, Ask(slots[2], "x\u0000'", 0, NOW, False)) == [["k"], ["k"], [], ["k"]]

    def test_pruning_changes_no_later_answer(self, online: OnlineStore) -> None:
        online.watch([STOPS, LINES])
        rng = random.Random(3)
        events = [
            event(f"t{i}", -at, known=rng.randrange(-at, 200), stop=rng.choice("abc"), line=rng.choice("xy"))
            for i, at in enumerate(rng.sample(range(3_000), 120))
        ]
        online.put("trips", events)
        asks = [ask(at, stop=s, window=300) for at in (0, 77, 300) for s in "abc"]
        asks += [ask(at, stop=s, window=2_000, last=True, slot=LINES) for at in (0, 150) for s in "xy"]
        before = keys(online, *asks)
        assert before == [by_hand(events, a) for a in asks]
        needs = [Need(STOPS, 300, 0), Need(LINES, 0, 2_000)]
        assert online.prune(needs, horizon_us=NOW) > 0
        assert keys(online, *asks) == before
        assert online.prune(needs, horizon_us=NOW) == 0
        assert online.prune(needs, horizon_us=NOW + 10_000) > 0
        assert keys(online, *asks) == [[]] * len(asks)

    @pytest.mark.parametrize("seed", range(3))
    def test_any_events_in_any_order_are_read_by_the_rule(self, online: OnlineStore, seed: int) -> None:
        rng = random.Random(seed)
        online.watch([STOPS])
        events = [
            event(f"t{i}", rng.randrange(-60, 20), known=rng.randrange(-60, 40), stop=rng.choice("ab"))
            for i in range(60)
        ]
        rng.shuffle(events)
        for start in range(0, len(events), 13):
            online.put("trips", events[start : start + 13])
        asks = [
            ask(rng.randrange(-60, 40), stop=rng.choice("abz"), window=rng.randrange(1, 90), last=rng.random() < 0.5)
            for _ in range(80)
        ]
        assert keys(online, *asks) == [by_hand(events, a) for a in asks]

    def test_many_events_of_one_entity(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        assert online.put("trips", [event(f"t{i}", -i) for i in range(4_500)]) == 4_500
        assert len(online.read([ask(0, window=10_000)])[0]) == 4_500
        assert keys(online, ask(0, window=10_000, last=True)) == [["t0"]]

    def test_several_threads_put_the_same_events_once(self, online: OnlineStore) -> None:
        online.watch([STOPS])
        counts: list[int] = []
        parts = 1 if online.local else 4  # a local store belongs to one thread

        def work(part: int) -> None:
            for i in range(40):
                counts.append(online.put("trips", [event(f"t{i}", -i), event(f"own-{part}-{i}", -i)]))
                online.read([ask(0)])

        threads = [threading.Thread(target=work, args=(part,)) for part in range(1, parts)]
        for thread in threads:
            thread.start()
        work(0)
        for thread in threads:
            thread.join()
        assert sum(counts) == 40 + parts * 40
        assert len(online.read([ask(0)])[0]) == 40 + parts * 40
