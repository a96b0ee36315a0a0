"""The road from a hospital's file to a model someone can pull, step by step."""

import os

# Threads that wait for each other sleep and do not spin. Where other work shares the cores, spinning makes a training
# step 2 to 20 times slower; on an idle machine it gains nothing (benchmarks/RESULTS.md). Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
