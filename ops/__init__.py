# SPDX-License-Identifier: Apache-2.0
"""Processes and people: the command line, settings, federation files and run folders. The top floor."""
