# SPDX-License-Identifier: Apache-2.0
"""What all tests share: no property test is failed by a clock, since machines are shared and slow at times."""

from hypothesis import HealthCheck, settings

settings.register_profile("shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-machine")
