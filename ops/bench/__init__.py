# SPDX-License-Identifier: Apache-2.0
"""What Fedledger costs: beside a plain loop and Flower, against the machine's own limits, and as it grows."""
