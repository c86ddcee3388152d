import sys
import types

from cqt2img._utils.progress import make_bar, progress_bar


def test_the_steps_stay_the_same():
    assert list(progress_bar(iter("abc"), 3, "reading")) == ["a", "b", "c"]


def test_a_bar_is_hidden_unless_there_is_a_terminal_or_a_notebook(monkeypatch, capsys):
    with make_bar(3, "reading") as bar:
        assert bar.disable
    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    with make_bar(3, "reading", file=sys.stderr) as bar:
        assert not bar.disable
    with make_bar(3, "reading", disable=True) as bar:
        assert bar.disable
    assert "reading" in capsys.readouterr().err
