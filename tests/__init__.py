"""The test suite; each of its processes uses one thread, because they share the machine's cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy, torch and FAISS are imported
