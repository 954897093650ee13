# SPDX-License-Identifier: Apache-2.0
"""A driver in a process of its own, with a Ray of its own: ``python -m tests.coordinator.own_cluster FOLDER WHAT``.

``round`` carries out a round and says what it saw, ``killed`` is killed while its workers are warm.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"})

import ray

from coordinator.cluster import Cluster
from coordinator.processes import cluster_processes
from identity import canonical
from identity.keys import Keystore
from tests.coordinator import cluster_rounds as rounds

STRANGER = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "token" if sys.argv[2] else "disabled"
os.environ["RAY_AUTH_TOKEN"] = sys.argv[2]
os.environ["RAY_NUM_REDIS_GET_RETRIES"] = "1"
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=50)
    print("joined")
except ConnectionError as error:
    chain = [error]
    while chain[-1].__cause__ or chain[-1].__context__:
        chain.append(chain[-1].__cause__ or chain[-1].__context__)
    print("refused" if "AuthenticationError" in str(chain) else repr(chain))
os._exit(0)
"""
# Each training leaves a note of what its process holds and knows.
SPY = """
import json
held = []
for link in os.listdir('/proc/self/fd'):
    try:
        held.append(os.readlink('/proc/self/fd/' + link))
    except OSError:
        pass
with open({path!r}, 'w') as file:
    json.dump({{'files': held, 'environment': dict(os.environ), 'threads': torch.get_num_threads(),
               'deterministic': torch.are_deterministic_algorithms_enabled()}}, file)
"""


def stranger(address: str, token: str) -> str:
    """What a process with this token gets at our Ray."""
    ran = subprocess.run([sys.executable, "-c", STRANGER, address, token], capture_output=True, text=True, check=False)
    return ran.stdout.strip() or ran.stderr


def main(folder: Path, what: str) -> None:
    passphrase = secrets.token_hex(16)
    store = Keystore.create(folder / "keystore.json", passphrase)
    store.identity("site-01", create=True)
    store.save()
    settings = rounds.settings(folder, rounds.write_task(folder, SPY.format(path=str(folder / "seen.json"))), workers=2)
    with Cluster(settings) as cluster, (folder / "keystore.json").open() as held:
        cluster.ready()
        record: dict[str, Any] = canonical.loads(Path(settings.processes).read_bytes())
        report: dict[str, Any] = {"folder": record["folder"], "recorded": record["processes"]}
        if what == "killed":
            print(json.dumps(report), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        [outcome] = rounds.run_rounds(cluster, settings, 1)
        address = ray.get_runtime_context().gcs_address
        report |= {
            "model": outcome.model,
            "lines": [slot.path for slot in cluster._pool()._slots],
            "loaded": [m for m in ("torch", "numpy", "sklearn", "coordinator.worker") if m in sys.modules],
            "processes": [[p.pid, p.started] for p in cluster_processes(record["folder"])],
            "mode": os.stat(record["folder"]).st_mode & 0o777,
            "strangers": [stranger(address, "0" * 64), stranger(address, "")],
            "friend": stranger(address, os.environ["RAY_AUTH_TOKEN"]),
            "usage": ray._common.usage.usage_lib.usage_stats_enabled(),
            "dashboard": ray._private.worker.global_worker.node.address_info["webui_url"],
            "passphrase": passphrase, "held": held.name,
        }  # fmt: skip
    print(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
