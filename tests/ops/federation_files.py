# SPDX-License-Identifier: Apache-2.0
"""A federation file that is good, and what the others are refused with."""

from pathlib import Path

import pytest

from identity.errors import UsageError
from ops.federation_file import load

GOOD = """\
name = "breast-cancer"
task = "breast-cancer"
sites = 10
rounds = 5

[agreement]
purpose = "Tell benign from malignant"
legal_basis = "Public data"
min_participants = 6

[simulate]
tamper = "site-03@2"
drop = ["site-07@3", "site-08@3"]
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "federation.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(write(folder, text))
    return caught.value
