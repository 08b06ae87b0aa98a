"""Workers, which train: processes of this machine, or actors of a Ray cluster."""

import os

os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # read by Ray when imported: no other cluster when ours is lost
