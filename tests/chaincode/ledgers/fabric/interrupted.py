# SPDX-License-Identifier: Apache-2.0
"""Reads a channel and is interrupted in between, again and again; run by ``test_real.py``, which waits for its end.

python -m tests.chaincode.ledgers.fabric.interrupted PROFILE TIMES
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from chaincode.ledgers.fabric.gateway import Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.messages import seek_newest
from chaincode.ledgers.fabric.profile import load_profile


def main(profile: Path, times: int) -> None:
    """Be interrupted ``times`` times, at moments that no seed fixes, and hang up after each."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    read = load_profile(profile)
    member = load_member(read.organisations[0])
    for _ in range(times):
        peer = Peer(read.organisations[0].peers[0])
        seek = seek_newest(member, read.channel, int(time.time()))
        peer.newest(seek, 5.0)
        interrupt = threading.Timer(random.uniform(0.005, 0.03), os.kill, (os.getpid(), signal.SIGINT))
        try:
            interrupt.start()
            while True:
                peer.newest(seek, 5.0)
        except KeyboardInterrupt:
            peer.close()
        interrupt.join()
    print("ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
