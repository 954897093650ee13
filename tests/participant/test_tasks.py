# SPDX-License-Identifier: Apache-2.0
"""References to tasks, and the ready-made ones with their data."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits

from identity.errors import Unavailable, UsageError
from participant.task import Task
from participant.tasks import READY, load_task, locate_task, tables

METHODS = "    def build_model(self): pass\n    def site_data(self, site, sites, seed): pass\n"
MINE = f"from participant import Task\nclass Mine(Task):\n    name = 'mine'\n    version = '7'\n{METHODS}"


@pytest.mark.parametrize("reference", READY)
def test_ready_made_tasks_load_by_name(reference: str) -> None:
    task = load_task(reference)
    assert isinstance(task, Task)
    assert task.name == reference
    assert len(task.code_digest()) == 64


def test_locating_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "boom.py").write_text("Mine = 1\nraise RuntimeError('ran')")
    where = locate_task("boom.py:Mine", tmp_path)
    assert where.path == str(tmp_path / "boom.py")
    assert where.attribute == "Mine"
    assert where.module not in sys.modules


def test_a_file_is_loaded_as_it_is_now_and_not_from_bytecode(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    first = load_task("mine.py:Mine", tmp_path)
    status = path.stat()
    path.write_text(MINE.replace("'7'", "'8'"))  # the same size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = load_task("mine.py:Mine", tmp_path)
    assert (first.version, second.version) == ("7", "8")
    assert first.code_digest() != second.code_digest()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]  # no __pycache__ beside the user's file


def test_the_digest_is_of_what_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    task = load_task("mine.py:Mine", tmp_path)
    before = task.code_digest()
    path.write_text(MINE + "# edited while it runs\n")
    assert task.code_digest() == before


def test_a_task_in_a_folder_below(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.py").write_text(MINE)
    assert load_task("sub/mine.py:Mine", tmp_path).name == "mine"


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("breast-canser", "task-unknown"),
        ("", "task-unknown"),
        ("mine:Mine", "task-unknown"),
        ("mine.py", "task-unknown"),
        ("mine.py:", "task-unknown"),
        ("mine.py:Mi ne", "task-unknown"),
        ("participant.py:Mine", "task-unknown"),
        ("absent.py:Mine", "task-missing"),
        (".py:Mine", "task-missing"),
        ("a\0b.py:Mine", "task-missing"),
        (f"{'a' * 5000}.py:Mine", "task-missing"),
    ],
)
def test_bad_references_say_what_is_allowed(reference: str, code: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Example: ") as caught:
        locate_task(reference, tmp_path)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("class Mine:\n    pass\n", "task-class", "derived from Task"),
        ("from participant import Task\nMine = Task()\n", "task-class", "derived from Task"),
        ("x = 1\n", "task-class", "it has no class at all"),
        ("class Other: pass\n", "task-class", "its classes are Other"),
        ("Mine = 1\n", "task-class", "derived from Task"),
        ("Mine = 1\nraise KeyError('patient 17')\n", "task-not-loadable", "KeyError: 'patient 17'"),
        ("x = 1\ndef broken(:\n", "task-not-loadable", "line 2 cannot be loaded: SyntaxError"),
        ("x = '\0'", "task-not-loadable", "null"),
        ("import sys\nMine = sys.exit(3)\n", "task-not-loadable", "SystemExit: 3"),
        (MINE + "    def __init__(self, needed): pass\n", "task-not-loadable", "needed"),
        (MINE.replace("name = 'mine'", "name = ''"), "task-name", 'name = "my-task"'),
        (MINE.replace("'mine'", "'Has Space'"), "task-name", "name"),
        (MINE.replace("'7'", "7"), "task-name", 'version = "1"'),
    ],
)
def test_unusable_files_are_the_users_error(source: str, code: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError) as caught:
        load_task("mine.py:Mine", tmp_path)
    assert caught.value.code == code
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        MINE.replace("class Mine", "class MineToo"),
        "# Mine\n" + MINE.replace("class Mine", "class Other"),
        "from participant import Task as Mine\nclass Other(Mine): pass\n",
        "def other():\n    return Mine\n",
    ],
    ids=["a longer name", "only mentioned", "Task itself", "only used"],
)
def test_a_class_that_a_file_does_not_have_is_missed_before_anything_runs(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(UsageError, match="has no class Mine; ") as caught:
        locate_task("mine.py:Mine", tmp_path)
    assert caught.value.code == "task-class"


@pytest.mark.parametrize(
    "source",
    [
        MINE, "if True:\n    " + MINE.replace("\n", "\n    "), "from other import Mine\n", "from other import Their as Mine\n", "import Mine\n",
        "from other import *\n", "Mine = make()\n", "Mine: type = make()\n", "for Mine in everything:\n    pass\n",
        "globals()['Mine'] = make()\n",
    ],
)  # fmt: skip
def test_a_class_may_come_about_in_many_ways(source: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(source)
    assert locate_task("mine.py:Mine", tmp_path).attribute == "Mine"


TASK = "from participant import Task\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Mine:\n    pass\n", "line 1: the class Mine is not derived from Task"),
        ("from torch import nn\nclass Mine(nn.Module):\n    pass\n", "line 2: the class Mine is not derived from Task"),
        ("class Base(object): pass\nclass Mine(Base): pass\n", "line 2: the class Mine is not derived from Task"),
        ("class Task: pass\nclass Mine(Task): pass\n", "line 2: the class Mine is not derived from Task"),
        (f"{TASK}class Mine(Task): pass\n", "Mine has no name and no build_model and no site_data, which every task needs"),
        (MINE.replace("build_model", "make_model"), "Mine has no build_model, which"),
        (MINE.replace("    name =", "    title ="), 'Mine has no name, which every task needs. Example: name = "my-task"'),
        (MINE.replace("Mine(Task)", "Base(Task)") + "class Mine(Base): pass\n", ""),
        (MINE.replace("class Mine", f"class Base:\n{METHODS}class Mine").replace("Mine(Task)", "Mine(Base, Task)"), ""),
        ("import participant as p\nclass Mine(p.Task): pass\n", "Mine has no name"),
        ("import participant.task\nclass Mine(participant.task.Task): pass\n", "Mine has no name"),
        ("from participant.task import Task as T\nclass Mine(T): pass\n", "Mine has no name"),
        (f"{TASK}from elsewhere import Mixin\nclass Mine(Mixin, Task): pass\n", ""),
        (f"{TASK}@complete\nclass Mine(Task): pass\n", ""),
        (f"{TASK}class Mine(Task, metaclass=Meta): pass\n", ""),
        (f"{TASK}class Mine(Task): pass\nMine = complete(Mine)\n", ""),
        (f"{TASK}class Mine(make(Task)): pass\n", ""),
        (f"{TASK}class Mine(Task): pass\nMine.name, Mine.build_model = 'mine', make\nsetattr(Mine, 'site_data', give)\n", ""),
        ("class Mine(Mine): pass\n", "not derived from Task"),
    ],
)  # fmt: skip
def test_a_class_that_is_evidently_no_task_is_refused_before_anything_runs(
    source: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(source)
    if not says:  # it may be one, as far as the source tells
        assert locate_task("mine.py:Mine", tmp_path).attribute == "Mine"
        return
    with pytest.raises(UsageError) as caught:
        locate_task("mine.py:Mine", tmp_path)
    assert caught.value.code == "task-class"
    assert says in str(caught.value)
    assert "Example: " in str(caught.value)


def test_a_method_that_only_loading_shows_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace("build_model", "make_model") + "Mine = Mine\n")
    with pytest.raises(UsageError, match="Mine has no build_model, which every task needs") as caught:
        load_task("mine.py:Mine", tmp_path)
    assert caught.value.code == "task-class"


def test_what_a_task_s_file_raises_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import json\nMine = json.loads('nothing')\n")
    with pytest.raises(UsageError, match=r"JSONDecodeError: .* \(mine.py, line 2\)"):
        load_task("mine.py:Mine", tmp_path)


def test_a_file_that_does_not_load_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "half_way.py").write_text("x = 1\nraise ValueError\n")
    with pytest.raises(UsageError):
        load_task("half_way.py:Mine", tmp_path)
    assert not any("half_way" in name for name in sys.modules)


def test_tables_are_scikit_learns() -> None:
    cancer, digits = load_breast_cancer(), load_digits()
    for (features, labels), theirs in (
        (tables.read_table("breast_cancer.csv", 1), cancer),
        (tables.read_table("digits.csv.gz", 0), digits),
    ):
        assert np.array_equal(features, theirs.data)
        assert np.array_equal(labels, theirs.target)


def test_a_missing_table_names_the_package() -> None:
    with pytest.raises(Unavailable, match="scikit-learn"):
        tables.read_table("absent.csv", 0)


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=120),
    sites=st.integers(1, 40),
    alpha=st.sampled_from([0.05, 0.5, 5.0]),
    seed=st.integers(0, 2**53 - 1),
)
def test_a_split_deals_every_row_once_and_leaves_nobody_empty_handed(
    labels: list[int], sites: int, alpha: float, seed: int
) -> None:
    parts = tables.dirichlet_split(np.array(labels), sites, alpha, seed)
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    least = min(tables.LEAST, len(labels) // sites) or 1
    assert all(len(part) >= least for part in parts[: len(labels)])
    again = tables.dirichlet_split(np.array(labels), sites, alpha, seed)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


@pytest.mark.parametrize(("reference", "rows", "held_out"), [("breast-cancer", 569, 114), ("digits", 1797, 359)])
def test_ready_made_data(reference: str, rows: int, held_out: int) -> None:
    task = load_task(reference)
    parts = [task.site_data(i, 10, 1) for i in range(10)]
    sizes = [len(labels) for _, labels in parts]
    assert sum(sizes) == rows - held_out
    assert min(sizes) >= tables.LEAST
    assert max(sizes) > 2 * min(sizes)  # uneven by size
    shares = [labels.bincount(minlength=10)[1] / len(labels) for _, labels in parts]
    assert max(shares) > 2 * min(shares)  # and by label
    other = [len(task.site_data(i, 10, 2)[1]) for i in range(10)]
    assert other != sizes  # the seed decides
    held = task.evaluation_data()
    assert held is not None
    assert len(held[1]) == held_out
    trained = {row.numpy().tobytes() for features, _ in parts for row in features}
    assert not any(row.numpy().tobytes() in trained for row in held[0])  # never trained on
    assert task.build_model()(held[0][:3]).shape == (3, 10 if reference == "digits" else 2)


def test_more_sites_than_rows_leaves_the_last_without_data() -> None:
    task = load_task("breast-cancer")
    sizes = [len(task.site_data(i, 500, 1)[1]) for i in range(500)]
    assert sum(sizes) == 455
    assert all(sizes[:455])
    assert not any(sizes[455:])


def test_breast_cancer_is_standardised_with_the_training_rows() -> None:
    task = load_task("breast-cancer")
    features = torch.cat([task.site_data(i, 4, 1)[0] for i in range(4)])
    assert features.mean(dim=0).abs().max() < 1e-5
    assert (features.std(dim=0, correction=0) - 1).abs().max() < 1e-5
