"""What an older version left is brought up to date before anything asks it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import dagster as dg

from orchestration.instance import open_instance
from pipelines.home import Home
from tests.support.older_mlflow import make_older

OLDER = "6b7fb194ff9c"
"""A revision of Dagster's."""


def revision(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT version_num FROM alembic_version").fetchone()[0]


def test_both_stores_of_make_ui_get_the_schema_of_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", "/elsewhere")
    home = Home(tmp_path)
    (tmp_path / "mlflow").mkdir()
    older, newest = make_older(home.tracking_uri)
    with open_instance(home) as instance:
        run = instance.create_run_for_job(dg.GraphDefinition(name="nothing").to_job()).run_id
    assert revision(tmp_path / "mlflow" / "mlflow.db") == newest != older
    runs, events = tmp_path / "dagster/history/runs.db", tmp_path / "dagster/history/runs/index.db"
    latest = [revision(runs), revision(events)]
    for database in (runs, events):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("UPDATE alembic_version SET version_num = ?", (OLDER,))
    assert [revision(runs), revision(events)] != latest
    with open_instance(home) as instance:
        assert instance.has_run(run)
    assert [revision(runs), revision(events)] == latest
