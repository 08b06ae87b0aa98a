"""Workers, which train: processes of this machine, or actors of a Ray cluster."""

import os

# Ray reads this when it is imported; else it would join another cluster when ours is lost.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
