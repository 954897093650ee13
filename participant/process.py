# SPDX-License-Identifier: Apache-2.0
"""What a process that trains is set to before it trains."""

import ctypes

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
_NEVER = 2**31 - 1


def prepare_process() -> None:
    """One thread and deterministic algorithms, for every run in this process, and memory that is kept for the next site."""
    torch.set_num_threads(1)
    # The same switch as torch.use_deterministic_algorithms, which imports the compiler: a second and more.
    torch.set_deterministic_debug_mode("error")
    # A large model's gradients are given back to the system after each site otherwise, and cost a page fault each anew.
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_THRESHOLD, 1 << 30)
