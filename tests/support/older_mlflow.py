"""A database as an older MLflow left it."""

from __future__ import annotations

import pipelines.tracking  # noqa: F401

# isort: split
# `pipelines.tracking` silences MLflow before it is imported.
import sqlalchemy
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base


def make_older(url: str | sqlalchemy.URL) -> tuple[str, str]:
    """Give an empty database the tables of the revision before the newest; the two revisions."""
    config = utils._get_alembic_config("")
    newest = ScriptDirectory.from_config(config).get_revision("head")
    assert isinstance(newest.down_revision, str)
    engine = sqlalchemy.create_engine(url)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, newest.down_revision)
    engine.dispose()
    return newest.down_revision, newest.revision
