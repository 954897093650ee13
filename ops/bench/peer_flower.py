# SPDX-License-Identifier: Apache-2.0
"""Flower's simulation engine on a workload: a process of an environment of its own, which has no Fedledger.

``python -m ops.bench.peer_flower FOLDER JOURNAL CORES``. Federated averaging is Flower's own strategy, on all clients
in every round; what a client trains, and how the model is evaluated once a round at the server, is ``ops.bench.loop``.
"""

import os
import sys
import traceback
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from ops.bench import loop


def client_app(folder: str) -> ClientApp:
    """What every client runs: one epoch on its own rows from the server's model."""

    def train(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)
        work = loop.load(folder)
        site, number = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])
        model, data = loop.own_model(work.plan.layers), work.data[site]
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        loss = loop.train(model, data, int(work.seeds[number - 1, site]), work.plan)
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"loss": loss, "num-examples": len(data[1])}),
            }
        )
        return Message(content=content, reply_to=message)

    app = ClientApp()
    app.train()(train)
    return app


def server_app(folder: str, journal: loop.Journal) -> ServerApp:
    """Federated averaging; the model is evaluated at the server and nowhere else, as in the other contestants."""

    def evaluate(number: int, arrays: Any) -> Any:
        if not number:
            return None
        work = loop.load(folder)
        model = loop.own_model(work.plan.layers)
        model.load_state_dict(arrays.to_torch_state_dict())
        accuracy, loss = loop.evaluate(model, work.held_out)
        journal.round(number, accuracy, loss)
        return MetricRecord({"accuracy": accuracy, "loss": loss})

    def main(grid: Grid, context: Context) -> None:
        torch.set_num_threads(1)
        work = loop.load(folder)
        model = loop.own_model(work.plan.layers)
        loop.set_parameters(model, loop.load_initial(folder))
        sites = work.plan.sites
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
        strategy.start(
            grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=work.plan.rounds,
            train_config=ConfigRecord({}), evaluate_fn=evaluate,
        )  # fmt: skip

    app = ServerApp()
    app.main()(main)
    return app


def run(folder: str, journal: str, cores: str) -> None:
    """Carry out all rounds with as many clients at a time as there are cores."""
    keeper = loop.Journal(journal)
    # A cluster of its own, whatever else runs on this machine.
    own = {"num_cpus": int(cores), "address": "local"}
    try:
        run_simulation(
            server_app=server_app(folder, keeper), client_app=client_app(folder),
            num_supernodes=loop.load(folder).plan.sites,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": own},
        )  # fmt: skip
    except Exception:
        traceback.print_exc()
        os._exit(1)  # the thread of the server would wait for its clients for an hour


if __name__ == "__main__":
    run(*sys.argv[1:])
