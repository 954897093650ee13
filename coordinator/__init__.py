# SPDX-License-Identifier: Apache-2.0
"""Drives rounds: what to do next, and the cluster of workers that trains and aggregates."""
