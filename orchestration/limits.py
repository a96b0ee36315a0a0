"""How many steps of a pool run at once on this machine.

`make ui` sets the limits once. Change them in the UI under Deployment, Concurrency; later starts keep the change.

    python -m orchestration.limits      set them without `make ui`, as deploy/start does

A step that waits for its pool waits in its own run, and Dagster says which run it waits for.
"""

from __future__ import annotations

import os

import dagster as dg

LIMITS = {
    "gpu": 1,  # steps with a network: two at once would share the memory and finish later
    "download": 4,  # sources; a source's partitions are fetched one at a time, over many connections
    "harmonize": os.cpu_count() or 1,  # each step fills a core
}


def seed(instance: dg.DagsterInstance) -> None:
    """Set each pool's limit, unless it was set before."""
    storage = instance.event_log_storage
    known = {pool.name for pool in storage.get_pool_limits() if not pool.from_default}
    for pool, limit in LIMITS.items():
        if pool not in known:
            storage.set_concurrency_slots(pool, limit)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as here:
        seed(here)
