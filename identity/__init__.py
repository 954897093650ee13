# SPDX-License-Identifier: Apache-2.0
"""Who signs: DIDs, keys, envelopes and membership credentials. The lowest floor: it imports no other."""
