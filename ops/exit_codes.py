# SPDX-License-Identifier: Apache-2.0
"""What a command's exit code says; a module of its own, for the entry point loads nothing else before it must."""

CLEAN, FINDINGS, USAGE, UNAVAILABLE, INTERNAL, INTERRUPTED = 0, 1, 2, 3, 70, 130
