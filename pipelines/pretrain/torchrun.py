"""torchrun, but for its exit code: that of a process that refused, where torchrun knows a failure alone.

python -m pipelines.pretrain.torchrun --standalone --nproc-per-node 2 -m pipelines.pretrain ...
"""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from pipelines.pretrain.step import REFUSED

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ChildFailedError as error:
        if any(failure.exitcode == REFUSED for failure in error.failures.values()):
            sys.exit(REFUSED)  # and it said why
        raise
