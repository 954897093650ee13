# SPDX-License-Identifier: Apache-2.0
"""A federation file of any bytes and any content: read, or refused with a reason."""

import tomllib
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity.errors import UsageError
from ops.federation_file import FederationFile, load
from ops.file_fields import AGREEMENT, ATTESTATIONS, OPTIMISER_DEFAULTS, SIMULATE, TOP
from tests.ops.federation_files import GOOD, refusal, write


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")))
def test_hostile_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    refusal(tmp_path, data)


def toml_text(value: object) -> str:
    """A TOML spelling of a generated value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml_text, value))}]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    return str(value)


SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["site-03@2", "avg", "yogi", "digits", "a.py:B", "1979-05-27", "1e5"])
)  # fmt: skip

VALUES = SCALARS | st.lists(SCALARS, max_size=3)

KEYS = st.sampled_from([*TOP, *SIMULATE, *AGREEMENT, *ATTESTATIONS, "agreement", "simulate", "attestations", "x"])


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    top=st.dictionaries(KEYS, VALUES, max_size=2),
    agreement=st.dictionaries(KEYS, VALUES, max_size=3),
    simulate=st.dictionaries(KEYS, VALUES, max_size=2),
)
def test_no_content_escapes_as_another_error(
    tmp_path: Path, top: dict[str, object], agreement: dict[str, object], simulate: dict[str, object]
) -> None:
    good = tomllib.loads(GOOD)
    tables = [
        ("", {k: v for k, v in good.items() if not isinstance(v, dict)} | top),
        ("[agreement]", good["agreement"] | agreement),
        ("[simulate]", simulate),
    ]
    text = "\n".join([header + "\n" + "\n".join(f"{k} = {toml_text(v)}" for k, v in t.items()) for header, t in tables])
    path = write(tmp_path, text)
    outcome: FederationFile | UsageError
    try:
        outcome = load(path)
    except UsageError as error:
        outcome = error
    if isinstance(outcome, UsageError):
        assert f"{path}:" in outcome.message
        assert len(outcome.message.split("\n")) == 3
    else:
        file = outcome
        assert 1 <= file.agreement.min_participants <= file.sites
        assert set(file.agreement.parameters) == set(OPTIMISER_DEFAULTS[file.agreement.optimiser])
        assert all(f.site in file.site_names and 1 <= f.round <= file.rounds for f in file.faults)
