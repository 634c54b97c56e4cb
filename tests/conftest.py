"""What holds for the tests of every room."""

import os

# With small tensors torch's threads only wait for one another, for minutes where others use the cores as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
