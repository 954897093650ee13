# SPDX-License-Identifier: Apache-2.0
"""``fedledger new``: two files that work as they are, and nothing overwritten."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops import federation_file
from ops.file_fields import AGREEMENT, SIMULATE, TOP
from participant.tasks import locate_task
from tests.ops.runs import Terminal

ROOT = Path(__file__).resolve().parents[2]


def test_it_writes_a_sound_file_and_says_what_to_run(terminal: Terminal) -> None:
    said = terminal("new", "my-federation")
    file = federation_file.load("my-federation/federation.toml")
    assert (file.name, file.task, file.faults) == ("my-federation", "task.py:WineTask", ())
    assert file.task_file == Path("my-federation/task.py")
    assert locate_task(file.task, file.path.parent).attribute == "WineTask"
    assert said.splitlines()[-1].endswith("run my-federation/federation.toml")
    assert "$" not in Path("my-federation/federation.toml").read_text().replace("runs/$", "")


def test_the_file_names_every_key_or_shows_it_commented(terminal: Terminal) -> None:
    terminal("new", "x")
    text = Path("x/federation.toml").read_text()
    shown = set(AGREEMENT) - {"momentum", "beta1", "beta2", "tau", "max_weight", "record_seconds"}
    for key in {*TOP, *shown, *SIMULATE}:
        assert f"{key} = " in text, key
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line or line == "# [simulate]" else line for line in text.split("\n")
    )
    Path("x/federation.toml").write_text(uncommented.replace('title = "..."', 'title = "T"').replace("runs/$name", ""))
    assert len(federation_file.load("x/federation.toml").faults) == 2


@pytest.mark.parametrize("name", ["Upper", "a b", "../..", "-x-", "é", "x" * 80, ""])
def test_a_name_that_cannot_be_one_is_refused(terminal: Terminal, name: str) -> None:
    terminal("new", "--", name, code=2)
    assert "allowed: " in terminal.err
    assert list(Path().iterdir()) == []


def test_a_folder_elsewhere_gives_its_own_name(terminal: Terminal, tmp_path: Path) -> None:
    terminal("new", tmp_path / "deep" / "down")
    assert federation_file.load(tmp_path / "deep" / "down" / "federation.toml").name == "down"


@pytest.mark.parametrize("existing", ["federation.toml", "task.py"])
def test_nothing_is_overwritten(terminal: Terminal, existing: str) -> None:
    Path("mine").mkdir()
    Path("mine", existing).write_text("precious")
    terminal("new", "mine", code=2)
    assert "new-exists" in terminal.err
    assert Path("mine", existing).read_text() == "precious"
    assert [path.name for path in Path("mine").iterdir()] == [existing]


TRAIN = """
import sys, torch
from pathlib import Path
from participant.tasks import load_task, locate_task
task = load_task(locate_task("task.py:WineTask", Path(sys.argv[1])))
torch.manual_seed(0)
model = task.build_model()
before = task.evaluate(model, task.evaluation_data())["accuracy"]
rows = [tuple(row.tolist()) for site in range(5) for row in task.site_data(site, 5, 1)[0]]
assert len(rows) == 142 and len(set(rows)) >= 140
for round in range(4):
    for site in range(5):
        task.train(model, task.site_data(site, 5, 1), seed=round)
after = task.evaluate(model, task.evaluation_data())["accuracy"]
assert after > 0.9 > before, (before, after)
"""


def test_the_task_learns(terminal: Terminal) -> None:
    terminal("new", "wine")
    subprocess.run([sys.executable, "-c", TRAIN, str(Path("wine").absolute())], cwd=ROOT, check=True, timeout=120)


@pytest.mark.parametrize("name", ["demo", "runs", "some/where/demo"])
def test_a_name_that_means_something_already_is_refused(terminal: Terminal, name: str) -> None:
    terminal("new", name, code=2)
    assert "new-name" in terminal.err
    assert not Path(name).exists()


def test_a_folder_with_anything_in_it_is_refused(terminal: Terminal) -> None:
    Path("mine").mkdir()
    terminal("new", "mine")
    Path("full").mkdir()
    Path("full/thesis").write_text("years of work")
    terminal("new", "full", code=2)
    assert "new-exists" in terminal.err
    assert [path.name for path in Path("full").iterdir()] == ["thesis"]
