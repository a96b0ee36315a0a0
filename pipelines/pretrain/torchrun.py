"""torchrun with another exit code: REFUSED if a process refused, which torchrun itself reports as any failure.

python -m pipelines.pretrain.torchrun --standalone --nproc-per-node 2 -m pipelines.pretrain ...
"""

from __future__ import annotations

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

from pipelines.program import REFUSED

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ChildFailedError as error:
        if any(failure.exitcode == REFUSED for failure in error.failures.values()):
            sys.exit(REFUSED)  # the process has logged the reason
        raise
