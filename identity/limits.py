# SPDX-License-Identifier: Apache-2.0
"""How large the things that are signed may be, for whoever bounds them before the code that reads them is loaded."""

from typing import Final

PAYLOAD_LIMIT: Final = 1 << 20
# The largest payload in base64, and room for the type, the keyid, the signature and the punctuation.
ENVELOPE_LIMIT: Final = (PAYLOAD_LIMIT + 2) // 3 * 4 + 1024
NOTE_LIMIT: Final = 1 << 18
