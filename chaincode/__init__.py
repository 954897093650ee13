# SPDX-License-Identifier: Apache-2.0
"""What every party must compute the same: entries, contract, log, evidence, aggregation, audit."""
