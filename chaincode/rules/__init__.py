# SPDX-License-Identifier: Apache-2.0
"""The rules for each kind of entry, in four files: members, agreements, rounds, results.

A rule is two functions: the keys that an entry may read or write, from the entry alone, and what it writes. It
raises ``Rejected`` with a code of ``chaincode.codes``. The order of its checks is the order of the lines.
"""
