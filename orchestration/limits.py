"""How many steps of a kind run at once on this machine. `make ui` sets the limits once; the UI changes them for good,
under Deployment, Concurrency.

    python -m orchestration.limits      the same, where something else starts the servers

A step that waits for its pool waits in its own run: nothing is lost, and Dagster says which run it waits for.
"""

from __future__ import annotations

import os

import dagster as dg

LIMITS = {
    "gpu": 1,  # whatever holds a network: two of them would share the memory and finish later
    "download": 4,  # sources at a time; of one source, one partition at a time is fetched over many connections
    "harmonize": os.cpu_count() or 1,  # each fills a core
}


def seed(instance: dg.DagsterInstance) -> None:
    """Give each pool its limit; one that somebody has set stays as it is."""
    storage = instance.event_log_storage
    known = {pool.name for pool in storage.get_pool_limits() if not pool.from_default}
    for pool, limit in LIMITS.items():
        if pool not in known:
            storage.set_concurrency_slots(pool, limit)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as here:
        seed(here)
