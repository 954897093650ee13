# SPDX-License-Identifier: Apache-2.0
"""The cluster on Ray: same bits on any number of workers, and what happens when workers and machines are lost."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import ray

from chaincode.models import digest_file
from coordinator.cluster import Cluster
from coordinator.jobs import ClusterSettings
from coordinator.pool import Call
from coordinator.ports import FinishOrder
from coordinator.processes import make_folder
from identity.errors import Error, Unavailable, UsageError
from participant.ports import TrainFailure, TrainResult
from tests.coordinator import cluster_rounds as rounds
from tests.fakes.local_cluster import LocalCluster

Make = Callable[..., tuple[Cluster, ClusterSettings]]


@pytest.fixture
def make(nodes: Any, tmp_path: Path) -> Iterator[Make]:
    """Makes a cluster that joins the tests' Ray; the task's ``before(self, site)`` is given as text."""
    made: list[Cluster] = []

    def build(
        body: str = "",
        *,
        task: str = "",
        width: int = 3,
        lines: bool = False,
        told: list[str] | None = None,
        **changes: Any,
    ) -> tuple[Cluster, ClusterSettings]:
        reference = task or rounds.write_task(tmp_path, body, width)
        settings = rounds.settings(tmp_path, reference, address=nodes.address, **changes)
        made.append(Cluster(settings, tell=[].append if told is None else told.append))
        made[-1]._folder = make_folder() if lines else ""  # as with a Ray of our own
        made[-1].start()
        return made[-1], settings

    yield build
    for cluster in made:
        cluster.close()


def first_round(
    cluster: Cluster, settings: ClusterSettings, *, light: bool = False, **options: Any
) -> tuple[Any, list[Any], rounds.Answers]:
    info = cluster.describe()
    if light:  # as from the second round on, where a worker has the model
        cluster._model.keep("", None)
    terms = rounds.agreement(info)
    asked = rounds.orders(settings, info, terms, info.initial, 1)
    return terms, asked, rounds.train(cluster, asked, **options)


@pytest.mark.parametrize(("task", "numbers"), [("breast-cancer", (1, 2, 3)), ("digits", (1, 3))])
def test_any_number_of_workers_gives_the_same_bits(
    task: str, numbers: tuple[int, ...], make: Make, tmp_path: Path
) -> None:
    outcomes, baselines = [], []
    for workers in numbers:
        cluster, settings = make(task=task, workers=workers)
        outcomes.append(rounds.run_rounds(cluster, settings, 2, "avgm"))
        baselines.append(cluster.baselines(1))
        cluster.close()
    (tmp_path / "local").mkdir()
    settings = rounds.settings(tmp_path / "local", task)
    with LocalCluster(settings) as local:  # neither Ray nor another worker makes a difference
        outcomes.append(rounds.run_rounds(local, settings, 2, "avgm"))
        baselines.append(local.baselines(1))
    assert all(outcome == outcomes[0] for outcome in outcomes)
    assert all(baseline == baselines[0] for baseline in baselines)
    assert len({outcome.model for outcome in outcomes[0]}) == 2
    assert outcomes[0][1].optimiser


@pytest.mark.parametrize("lines", [False, True])
def test_a_killed_worker_is_replaced_and_its_orders_are_tried_again(
    lines: bool, make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    marker = str(tmp_path / "killed")
    body = f"if site == 1 and not os.path.exists({marker!r}):\n    open({marker!r}, 'w').close()\n    os.kill(os.getpid(), signal.SIGKILL)"
    told: list[str] = []
    cluster, settings = make(body, workers=2, lines=lines, told=told)
    terms, asked, answers = first_round(cluster, settings, light=lines)
    assert Path(marker).exists()
    (notice,) = told
    assert notice.startswith("a worker was replaced: The worker died: ")
    assert all(isinstance(a, TrainResult) for a in answers.values())
    assert rounds.train(cluster, asked) == answers  # the same source, undisturbed
    assert rounds.finish_round(cluster, terms, asked, answers).model
    with pytest.raises(Unavailable, match="has joined a Ray already"):
        make(body)[0].describe()
    cluster.close()
    assert capfd.readouterr() == ("", "")  # what Ray has to say of it is for logs, not for whoever reads our output


@pytest.mark.parametrize("lines", [False, True])
def test_an_order_that_always_kills_its_worker_fails_alone(lines: bool, make: Make) -> None:
    body = "if site == 1:\n    os.kill(os.getpid(), signal.SIGKILL)"
    cluster, settings = make(body, workers=2, tries=2, lines=lines)
    terms, asked, answers = first_round(cluster, settings, light=lines)
    failure = answers.pop("site-02")
    assert isinstance(failure, TrainFailure)
    assert failure.code == "worker-died"
    assert "died" in failure.message.partition("The worker died: ")[2], "Ray says of what"
    assert all(isinstance(a, TrainResult) for a in answers.values())
    outcome = rounds.finish_round(cluster, terms, [o for o in asked if o.site != "site-02"], answers)
    assert digest_file(Path(settings.models) / f"{outcome.model}.safetensors") == outcome.model


@pytest.mark.parametrize("lines", [False, True])
def test_failures_of_a_task_name_their_cause(lines: bool, make: Make) -> None:
    body = (
        "if site == 0:\n    raise KeyError('patient 17')\n"
        "if site == 1:\n    self.learning_rate = float('nan')\n"
        "if site == 2:\n    self.learning_rate = 0.1\n    sys.exit('done')"
    )
    cluster, settings = make(body, workers=1, lines=lines)
    answers = first_round(cluster, settings, light=lines)[2]
    failures = {site: (a.code, a.message) for site, a in answers.items() if isinstance(a, TrainFailure)}
    assert {site: code for site, (code, _) in failures.items()} == {
        "site-01": "training-failed", "site-02": "update-not-finite", "site-03": "training-failed",
    }  # fmt: skip
    assert "KeyError: 'patient 17' (tiny.py, line" in failures["site-01"][1]
    assert "SystemExit: done" in failures["site-03"][1]


@pytest.mark.parametrize("lines", [False, True])
def test_a_task_that_hangs_is_bounded_and_alone(lines: bool, make: Make) -> None:
    cluster, settings = make("while site == 1:\n    time.sleep(60)", workers=2, lines=lines)
    cluster.ready()
    terms, asked, answers = first_round(cluster, settings, seconds=20.0, light=lines)
    assert {s: a.code for s, a in answers.items() if isinstance(a, TrainFailure)} == {"site-02": "training-timeout"}
    assert rounds.finish_round(cluster, terms, [o for o in asked if o.site != "site-02"], answers).model


@pytest.mark.parametrize("lines", [False, True])
def test_whoever_polls_waits_for_an_answer_and_no_longer(lines: bool, make: Make) -> None:
    cluster, settings = make("while site == 1:\n    time.sleep(60)", workers=2, lines=lines)
    cluster.ready()
    info, pool = cluster.describe(), cluster._pool()
    slow, quick = rounds.orders(settings, info, rounds.agreement(info), info.initial, 1)[1::-1]
    assert not pool.poll(60), "nothing is under way"
    for order, seconds, answered in ((slow, 0.05, False), (quick, 60, True)):
        pool.begin(deque([Call("train", "train", (None, [order]), light=True)]), lambda _: 60.0)
        assert pool.poll(seconds) == answered


def test_small_calls_take_a_line_and_large_ones_do_not(make: Make) -> None:
    """By turns on the same workers, with one outcome; what a line refuses has its own code."""
    cluster, settings = make(workers=2, lines=True)
    cluster.ready()  # else the first of them may still be starting while the other does all the work
    outcomes = []
    for light in (False, True, False, True):
        terms, asked, answers = first_round(cluster, settings, light=light)
        pool = cluster._pool()
        assert (pool._slots[0].line is not None) == light
        delivered = rounds.deliveries(asked, answers)
        weight = sum(delivery.commitment.weight for delivery in delivered)
        order = FinishOrder(terms, 1, asked[0].header.base, "", weight)
        outcomes.append(cluster.sum(delivered, order).outcome)
        assert pool._slots[0].line is not None
        outcomes.append(rounds.finish_round(cluster, terms, asked, answers))
        assert pool._slots[0].line is None
    assert outcomes[0] is not None
    assert len({outcome and outcome.model for outcome in outcomes}) == 1
    cluster._model.keep("", None)
    lost = [replace(order, header=replace(order.header, base="e" * 64)) for order in asked]
    assert {a.code for a in rounds.train(cluster, lost).values() if isinstance(a, TrainFailure)} == {"model-missing"}


def test_a_worker_that_was_killed_while_idle_on_its_line_is_replaced(make: Make) -> None:
    told: list[str] = []
    cluster, settings = make(workers=1, lines=True, told=told)
    _, asked, answers = first_round(cluster, settings, light=True)
    assert told == []
    (slot,) = cluster._pool()._slots
    assert slot.line is not None
    pid = int(slot.path.rpartition("-")[2])
    os.kill(pid, signal.SIGKILL)
    assert wait([slot.line], 60)
    assert rounds.train(cluster, asked) == answers
    assert not slot.path.endswith(f"-{pid}")
    assert [notice.partition(":")[0] for notice in told] == ["a worker was replaced"]


def test_leaving_ends_our_workers_and_nothing_else(nodes: Any, make: Make) -> None:
    cluster, settings = make(workers=2)
    cluster.ready()
    names = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
    assert names == {"fedledger test worker 0.1", "fedledger test worker 1.1"}
    cluster.close()
    cluster.close()  # a second time is no matter
    assert not ray.is_initialized()
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        assert ray.util.list_named_actors(all_namespaces=True) == []
        assert all(node["Alive"] for node in ray.nodes()[-1:])
    finally:
        ray.shutdown()
    with pytest.raises(Unavailable, match="closed"):
        cluster.describe()
    assert not Path(settings.processes).exists()


def test_a_task_that_cannot_be_loaded_is_the_users_error(make: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("from absent_module import Mine\n")
    cluster, _ = make(task="broken.py:Mine", workers=2)
    for ask in (cluster.ready, cluster.describe):
        with pytest.raises(UsageError, match="absent_module") as caught:
            ask()
        assert caught.value.code == "task-not-loadable"


def test_a_task_that_changes_during_the_run_is_not_loaded_again(make: Make, tmp_path: Path) -> None:
    cluster, settings = make("if site == 1:\n    os.kill(os.getpid(), signal.SIGKILL)", workers=1)
    cluster.ready()
    with (tmp_path / "tiny.py").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(UsageError) as caught:
        first_round(cluster, settings)
    assert caught.value.code == "task-changed"


def test_more_workers_than_the_cluster_has_cores_for(make: Make) -> None:
    cluster, _ = make(task="breast-cancer", sites=10, workers=10, start_seconds=4.0)
    with pytest.raises(Unavailable) as caught:
        cluster.ready()
    assert caught.value.code == "worker-start"


@pytest.mark.parametrize(
    ("address", "kind", "code"),
    [
        ("no-such-host.invalid:1", Unavailable, "ray-start"),
        ("127.0.0.1:1", Unavailable, "ray-start"),
        ("127.0.0.1:99999999", Unavailable, "ray-start"),
        ("ray://127.0.0.1:10001", UsageError, "ray-address"),
        ("somewhere", UsageError, "ray-address"),
        ("", UsageError, "ray-address"),
    ],
)
def test_no_cluster_at_the_address(address: str, kind: type[Error], code: str, tmp_path: Path) -> None:
    with Cluster(rounds.settings(tmp_path, "breast-cancer", address=address)) as cluster, pytest.raises(kind) as caught:
        cluster.describe()
    assert caught.value.code == code
    assert address in str(caught.value)


def test_a_lost_machine_is_made_up_for(nodes: Any, make: Make, tmp_path: Path) -> None:
    """One of two nodes goes in the middle of training; later the sums that it kept are gone too."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    body = (
        f"if site == 1 and not os.path.exists({str(tmp_path / 'blocked')!r}):\n"
        f"    open({str(tmp_path / 'blocked')!r}, 'w').close()\n"
        "    import ray\n"
        f"    open({str(pipe)!r}, 'w').write(ray.get_runtime_context().get_node_id())\n"
        "    time.sleep(600)"
    )
    nodes.add_node(num_cpus=3)
    cluster, settings = make(body, width=30_000, workers=2)  # sums too large to travel inside an answer
    cluster.ready()
    removed: list[Any] = []

    def remove(name: str) -> None:
        node = next(n for n in nodes.list_all_nodes() if n.node_id == name)
        nodes.remove_node(node, allow_graceful=False)
        removed.append(node)

    killer = threading.Thread(target=lambda: remove(pipe.read_text()))
    killer.start()
    terms, asked, answers = first_round(cluster, settings)
    killer.join()
    assert len(removed) == 1
    assert all(isinstance(a, TrainResult) for a in answers.values())
    nodes.add_node(num_cpus=3)
    held = cluster.sum(rounds.deliveries(asked, answers))
    alive = [n for n in nodes.list_all_nodes() if n is not nodes.head_node]
    nodes.remove_node(alive[0], allow_graceful=False)  # where the first workers, and what they kept, are
    outcome = cluster.finish(FinishOrder(terms, 1, asked[0].header.base, "", held.weight), [held])
    assert digest_file(Path(settings.models) / f"{outcome.model}.safetensors") == outcome.model
