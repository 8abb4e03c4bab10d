"""Settings of this repository's own tests; nothing here is needed by users of the plugin."""

import os

# The suite runs in several processes at once. Of their own threads each would take all cores, and wait for the others.
# Said before torch is imported, and inherited by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

pytest_plugins = ["pytester"]
