"""Seeds that follow from what they are for."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 32-bit seed that depends on every part: the same parts give the same seed, others an unrelated one."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big")
