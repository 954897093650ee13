# SPDX-License-Identifier: Apache-2.0
"""Numbers of things in messages, as people say them."""


def counted(number: int, one: str, many: str = "") -> str:
    """``1 round``, ``2 rounds``; ``1 entry``, ``2 entries``. ``many`` is for what has another plural, or a verb."""
    if number == 1:
        return f"1 {one}"
    if not many:
        many = f"{one[:-1]}ies" if one.endswith(("ry", "ty")) else f"{one}{'es' if one.endswith('sh') else 's'}"
    return f"{number} {many}"
