# SPDX-License-Identifier: Apache-2.0
"""What all tests share: no property test is failed by a clock, since machines are shared and slow at times."""

from hypothesis import HealthCheck, settings

from tests.fabric_network import fabric_network, fabric_ready, make_network, pytest_addoption  # noqa: F401

settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")
