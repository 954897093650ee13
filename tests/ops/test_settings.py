# SPDX-License-Identifier: Apache-2.0
"""Settings: where each value comes from, and what is refused."""

import os

import pytest

from identity.errors import UsageError
from ops import settings
from ops.settings import Setting


def test_the_command_line_wins_over_the_environment_over_what_is_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.setting("workers") == Setting("workers", "", "built in")
    assert settings.count("workers") is None
    monkeypatch.setenv("FEDLEDGER_WORKERS", " 3 ")
    assert settings.setting("workers") == Setting("workers", "3", "environment")
    assert settings.count("workers") == 3
    assert settings.setting("workers", 5) == Setting("workers", "5", "command line")
    assert settings.count("workers", 5) == 5


def test_texts_and_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.text("runs") == "runs"
    assert settings.text("key") is None
    assert not settings.switch("dashboard")
    assert settings.switch("dashboard", True)
    monkeypatch.setenv("FEDLEDGER_DASHBOARD", "yes")
    assert settings.switch("dashboard")
    assert not settings.switch("dashboard", False)


@pytest.mark.parametrize(("name", "value"), [
    ("WORKERS", "many"), ("WORKERS", "0"), ("WORKERS", "-1"), ("WORKERS", "²"), ("WORKERS", "9" * 5000), ("DASHBOARD", "maybe"),
])  # fmt: skip
def test_a_variable_that_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FEDLEDGER_{name}", value)
    with pytest.raises(UsageError) as caught:
        settings.in_force()
    assert caught.value.code == "setting-value"
    assert f"FEDLEDGER_{name}" in caught.value.message


def test_unknown_variables_are_named_with_what_was_perhaps_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLEDGER_WORKRES", "1")
    monkeypatch.setenv("FEDLEDGER_XYZZY", "1")
    assert settings.unknown_variables() == {"FEDLEDGER_WORKRES": "FEDLEDGER_WORKERS", "FEDLEDGER_XYZZY": ""}


def test_ray_is_given_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "before")
    settings.prepare_ray("t0ken")
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"]) == ("token", "t0ken")
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "before"  # what the user decided stays


def test_a_cluster_that_exists_keeps_its_users_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "theirs")
    settings.prepare_ray("ours", address="127.0.0.1:6379")
    assert os.environ["RAY_AUTH_TOKEN"] == "theirs"
