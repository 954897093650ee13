# SPDX-License-Identifier: Apache-2.0
"""The defaults that a task inherits, against the plain torch that its users know."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import participant
from participant import Task
from participant.task import Data
from participant.tasks import load_task

ROOT = Path(__file__).resolve().parent.parent.parent


class Perceptron(Task):
    name = "perceptron"

    def __init__(self, hidden: int = 5, frozen: bool = False) -> None:
        self.hidden, self.frozen = hidden, frozen

    def build_model(self) -> nn.Module:
        model = nn.Sequential(
            nn.Linear(4, self.hidden), nn.BatchNorm1d(self.hidden), nn.ReLU(), nn.Linear(self.hidden, 3)
        )
        model[0].bias.requires_grad = not self.frozen
        return model


def examples(rows: int, seed: int = 1) -> Data:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=generator), torch.randint(0, 3, (rows,), generator=generator)


def built(task: Task) -> nn.Module:
    torch.manual_seed(3)
    return task.build_model()


def plain_torch(task: Task, model: nn.Module, data: Data, seed: int) -> None:
    """The loop that torch's documentation teaches."""
    optimiser = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=task.learning_rate)
    shuffle = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(task.epochs):
        for batch in torch.randperm(len(data[1]), generator=shuffle).split(task.batch_size):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(data[0][batch]), data[1][batch]).backward()
            optimiser.step()


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(2, 40),
    hidden=st.integers(1, 33),
    epochs=st.integers(1, 3),
    batch_size=st.integers(2, 16),
    rate=st.sampled_from([0.1, 0.01, 1.0]),
    frozen=st.booleans(),
    seed=st.integers(0, 2**63 - 1),
)
def test_default_training_is_bit_for_bit_torch_sgd(  # noqa: PLR0917
    rows: int, hidden: int, epochs: int, batch_size: int, rate: float, frozen: bool, seed: int
) -> None:
    if rows % batch_size == 1:
        rows += 1  # batch normalisation cannot train on one row
    task = Perceptron(hidden, frozen)
    task.epochs, task.batch_size, task.learning_rate = epochs, batch_size, rate
    data, ours, theirs = examples(rows), built(task), built(task)
    task.train(ours, data, seed)
    plain_torch(task, theirs, data, seed)
    for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert mine.numpy().tobytes() == other.numpy().tobytes(), name


def test_training_reports_the_last_epochs_mean_loss_and_learns() -> None:
    task, data = Perceptron(16), examples(64)
    task.epochs = 30
    model = built(task)
    before = task.evaluate(model, data)
    metrics = task.train(model, data, 1)
    after = task.evaluate(model, data)
    assert metrics is not None
    assert 0 < metrics["loss"] < before["loss"]
    assert after["accuracy"] > before["accuracy"]
    assert after["loss"] < before["loss"]


def test_training_follows_its_seed() -> None:
    task, data = Perceptron(), examples(40)
    states = []
    for seed in (1, 1, 2):
        model = built(task)
        task.train(model, data, seed)
        states.append(model[0].weight.detach().numpy().tobytes())
    assert states[0] == states[1] != states[2]


def test_evaluation_counts_every_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    task, data = Perceptron(), examples(50)
    model = built(task).eval()
    whole = task.evaluate(model, data)
    assert whole["accuracy"] == int((model(data[0]).argmax(dim=1) == data[1]).sum()) / 50
    monkeypatch.setattr("participant.task.EVALUATION_ROWS", 7)
    pieces = task.evaluate(model, data)
    assert pieces["accuracy"] == whole["accuracy"]
    assert pieces["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_evaluation_changes_nothing() -> None:
    task = Perceptron()
    model = built(task)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    task.evaluate(model, examples(20))
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("method", ["build_model", "site_data"])
def test_what_must_be_written_says_so(method: str) -> None:
    arguments = () if method == "build_model" else (0, 1, 2)
    with pytest.raises(NotImplementedError, match=method):
        getattr(Task(), method)(*arguments)


def test_code_digest_is_of_the_source_whatever_its_line_ends(tmp_path: Path) -> None:
    source = (
        b"from participant import Task\n\nclass Mine(Task):\n    name = 'mine'\n"
        b"    def build_model(self): pass\n    def site_data(self, site, sites, seed): pass\n"
    )
    written = {"lf.py": source, "crlf.py": source.replace(b"\n", b"\r\n"), "bom.py": b"\xef\xbb\xbf" + source}
    for name, data in written.items():
        (tmp_path / name).write_bytes(data)
        assert load_task(f"{name}:Mine", tmp_path).code_digest() == hashlib.sha256(source).hexdigest()
    (tmp_path / "other.py").write_bytes(source + b"# changed\n")
    assert load_task("other.py:Mine", tmp_path).code_digest() != hashlib.sha256(source).hexdigest()


def test_code_digest_of_an_ordinary_module() -> None:
    assert Perceptron.code_digest() == hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def test_the_package_is_imported_without_torch() -> None:
    """R6: the process that signs imports participant.ports and participant.tasks."""
    script = "import sys, participant.ports, participant.tasks; assert 'torch' not in sys.modules; from participant import Task"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_public_names() -> None:
    assert participant.__all__ == ["Task"]
    with pytest.raises(AttributeError, match="no attribute 'Tusk'"):
        _ = participant.Tusk
