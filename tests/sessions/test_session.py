import json
import threading
from pathlib import Path

import numpy as np
import pytest

from semfield_ns.errors import SemfieldError
from semfield_ns.segmentation.cameras import ViewCamera
from semfield_ns.segmentation.prompts import Box, Stroke, TextQuery
from semfield_ns.sessions.actions import (
    AddObject,
    AddPrompt,
    Clear,
    ErasePrompt,
    Redo,
    SessionState,
    SetGrowth,
    SetThreshold,
    Undo,
    apply,
    replay,
)
from semfield_ns.sessions.session import Session, read_session, session_json

CAMERA = ViewCamera((1, 0, 0, 0.1, 0, 1, 0, 0, 0, 0, 1, 1 / 3), 50.0, 50.0, 32.0, 24.0, 64, 48, time=0.25)


def busy_session(seed: int, count: int = 200) -> Session:
    """Random actions, as tools would do them."""
    random = np.random.default_rng(seed)
    session = Session()
    for _ in range(count):
        state = session.state
        objects = [entry.id for entry in state.objects]
        prompts = [number for _, number, _ in state.prompts]
        kind = random.integers(8)
        if kind == 0 or not objects:
            session.add_object()
        elif kind == 1:
            session.undo()
        elif kind == 2:
            session.redo()
        elif kind == 3:
            session.do(SetThreshold(int(random.choice(objects)), float(random.random())))
        elif kind == 4 and prompts:
            session.do(ErasePrompt(int(random.choice(prompts))))
        elif kind == 5:
            session.do(Clear(int(random.choice(objects))))
        else:
            points = [tuple(point) for point in random.uniform(0, 48, (3, 2)).tolist()]
            session.add_stroke(int(random.choice(objects)), CAMERA, points, bool(random.integers(2)))
    return session


@pytest.mark.parametrize("seed", range(5))
def test_a_session_is_the_fold_of_its_log_and_survives_its_file(seed: int, tmp_path: Path):
    session = busy_session(seed)
    assert replay(session.log) == session.state
    session.save(tmp_path / "session.json")
    other = Session()
    other.load(tmp_path / "session.json")
    assert other.log == session.log
    assert other.state == session.state
    assert other.add_object() not in {a.object for a in session.log if isinstance(a, AddObject)}


def test_undo_and_redo_go_through_the_same_states():
    session = busy_session(7)
    states = [session.state]
    while session.last_done:
        states.append(session.undo())
    assert states[-1] == SessionState()
    for expected in reversed(states[:-1]):
        assert session.redo() == expected
    assert session.last_undone is None


def test_a_new_action_forgets_what_was_taken_back():
    session = Session()
    ball = session.add_object("ball")
    session.add_stroke(ball, CAMERA, [(1.0, 2.0)])
    session.undo()
    session.add_stroke(ball, CAMERA, [(3.0, 4.0)])
    before = session.state
    assert session.redo() is before
    assert [prompt.points for _, _, prompt in before.prompts] == [((3.0, 4.0),)]


def test_undoing_nothing_leaves_no_trace():
    session = Session()
    session.undo()
    session.redo()
    assert session.log == ()


def test_a_dragged_slider_is_one_action():
    session = Session()
    ball = session.add_object("ball")
    for value in (0.6, 0.7, 0.8):
        session.do(SetThreshold(ball, value))
    session.do(SetGrowth(ball, 0.1))
    session.do(SetThreshold(ball, 0.9))
    assert len(session.log) == 4
    session.undo()
    session.undo()
    assert session.state.object(ball).threshold == 0.8
    session.undo()
    assert session.state.object(ball).threshold == 0.5


def test_every_kind_of_prompt_and_every_number_come_back_from_a_file(tmp_path: Path):
    session = Session()
    thing = session.add_object("größer", (1, 2, 3))
    session.add_prompt(thing, Stroke(CAMERA, ((0.1, 1 / 3), (5.0, 6.0)), False, 2.5))
    session.add_prompt(thing, Box(CAMERA, ((1.0, 2.0), (3.0, 4.0)), True))
    session.add_prompt(thing, TextQuery("a red ball"))
    session.save(tmp_path / "s.json")
    assert read_session(tmp_path / "s.json") == session.log


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format="x"), "is not a session file"),
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c["actions"][0].update(action="Explode"), "action 1: it cannot be understood"),
        (lambda c: c["actions"][1].update(object=9), "Action 2 (AddPrompt): There is no object 9"),
        (lambda c: c["actions"][1]["prompt"].update(points=[]), "action 2: The points of a stroke"),
        (lambda c: c["actions"][1]["prompt"]["camera"].update(fx="wide"), "action 2: it cannot be understood"),
        (lambda c: c["actions"][0].update(color=[1, 2]), "action 1: A colour is"),
        (lambda c: c["actions"][0].update(object=1.5), "action 1: object of AddObject is a whole number"),
        (lambda c: c["actions"][1].update(when="now"), "has no field 'when'"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence_and_changes_nothing(change, message: str, tmp_path: Path):
    session = Session()
    session.add_stroke(session.add_object("ball"), CAMERA, [(1.0, 2.0)])
    content = json.loads(session_json(session.log))
    change(content)
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    before = session.log
    with pytest.raises(SemfieldError, match=message.replace("(", r"\(").replace(")", r"\)")):
        session.load(path)
    assert session.log == before


def test_what_is_not_there_cannot_be_changed():
    session = Session()
    ball = session.add_object("ball")
    for action in (ErasePrompt(3), SetThreshold(9, 0.5), AddObject(ball, "again", (0, 0, 0))):
        with pytest.raises(SemfieldError):
            session.do(action)
    assert len(session.log) == 1
    with pytest.raises(SemfieldError, match="no object 2"):
        apply(session.state, AddPrompt(2, 1, TextQuery("x")))


def test_two_people_at_once_lose_nothing():
    session = Session()
    heard = []
    session.on_change(lambda: heard.append(1))

    def draw() -> None:
        number = session.add_object()
        for x in range(50):
            session.add_stroke(number, CAMERA, [(float(x), 1.0)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert [len(entry.prompts) for entry in session.state.objects] == [50] * 4
    numbers = [number for _, number, _ in session.state.prompts]
    assert len(set(numbers)) == 200
    assert len(heard) == len(session.log) == 204
    assert replay(session.log) == session.state


def test_the_log_holds_undo_and_redo():
    session = Session()
    session.add_object("ball")
    session.undo()
    session.redo()
    assert session.log[1:] == (Undo(), Redo())
