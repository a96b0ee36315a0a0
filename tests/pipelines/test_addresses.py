"""No address with a secret in it is taken, and no refusal shows the secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.download.mirror import Mirror
from pipelines.home import Home
from pipelines.incoming.bucket import place_of
from pipelines.tracking import Tracking

SECRET = "SEKRET"
MIRRORS = (
    "https://user:SEKRET@host/ecg",
    "HTTPS://user:SEKRET@host/ecg",
    "https://SEKRET@host/ecg",
    "https://user:SEKRET%40host",
    "https://user:SEK/RET@host",
    "http://user:SEKRET@host:80/",
    "http://host/ecg?token=SEKRET",
    "http://host/ecg#SEKRET",
    "https://user:SEKRET",
)


@pytest.mark.parametrize("address", MIRRORS)
def test_a_mirror_with_a_secret_is_refused_without_showing_it(tmp_path: Path, address: str) -> None:
    for use in (
        lambda: Mirror.parse(address),
        lambda: Home(tmp_path).set_mirror(address),
        lambda: Home(tmp_path, address).mirror,
    ):
        with pytest.raises(ValueError, match="mirror has") as refused:
            use()
        assert not any(part in str(refused.value) for part in (SECRET, "SEK", "RET@"))
    assert not (tmp_path / "mirror").exists()


SPELLINGS = (
    *MIRRORS,
    "https://user%3ASEKRET%40host/x",
    "https://user%253ASEKRET%2540host/x",
    "http://host/ecg%3Ftoken=SEKRET",
    "https://[::1]:SEKRET/",
    "https://user:SEKRET@[::1]:443/",
    "https：//user:SEKRET@host",
    "https://user：SEKRET＠host",
    "https:/user:SEKRET@host/ecg",
    "https:user:SEKRET@host",
    "http:\\\\user:SEKRET@host\\x",
    "http:/\\user:SEKRET@host",
    "//user:SEKRET@host/x",
    "user:SEKRET@host:/x",
    " https://user:SEKRET@host",
    "ht\ntps://user:SEKRET@host",
    "https://us\ner:SEKRET@host",
    "https://host/\nSEKRET",
    "\u200bhttps://user:SEKRET@host",
    "ftp://user:SEKRET@host/x",
    "s3://KEY:SEKRET@bucket/p",
    "S3:/KEY:SEKRET@bucket/p",
    "s3://SEKRET@bucket",
    "s3://KEY:SEKRET",
    "s3://bucket/p?key=SEKRET",
    "s3://bucket/p#SEKRET",
    "az://acc:SEKRET@c",
    "abfss://c:SEKRET@acc.dfs.core.windows.net/x",
    "https://acc.blob.core.windows.net/c?sv=1&sig=SEKRET",
    "postgresql://u:SEKRET@h/db",
    "postgresql://u%3ASEKRET@h/db",
    "POSTGRESQL+psycopg2://h/db?sslmode=require&sslpassword=SEKRET",
    "postgresql://h/db?options=-c%20password%3DSEKRET",
    "postgresql:/u:SEKRET@h/db",
    "mysql+pymysql://h/db?passwd=SEKRET",
    "mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3DSEKRET",
    "sqlite+pysqlcipher://:SEKRET@/x.db",
    "sqlite:///x.db?key=SEKRET",
    "http://h:5000/?token=SEKRET",
)


def drops_of(address: str, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("ECG_INCOMING", address)
    place_of(Home(root).incoming)


@pytest.mark.parametrize("address", SPELLINGS)
def test_no_spelling_of_a_secret_is_taken_or_shown_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (
        lambda: Mirror.parse(address),
        lambda: Home(tmp_path).set_mirror(address),
        lambda: Home(tmp_path, address).space,
        lambda: drops_of(address, monkeypatch, tmp_path),
        # A store's address may name a user.
        lambda: Tracking(uri=address.replace("//SEKRET@host", "//u:SEKRET@host"), artifact_root=tmp_path),
        lambda: Tracking(uri="sqlite:///x.db", artifact_root=Path(address)),
        lambda: Home(address),
    ):
        with pytest.raises(
            ValueError, match=r"^(mirror|ECG_INCOMING|the tracking uri|artifact_root|data home) "
        ) as refused:
            use()
        assert not any(part in str(refused.value) for part in (SECRET, "SEK", "RET@"))
    assert list(tmp_path.iterdir()) == []


def test_addresses_without_secrets_are_taken(tmp_path: Path) -> None:
    for address in ("https://mirror.example/ecg", "http://127.0.0.1:8000", "http://[::1]:8000/a"):
        assert Mirror.parse(address).folder is None
    place_of("s3://bucket/incoming")
    assert Home(tmp_path / "a@b").root == tmp_path / "a@b"
    for uri in (
        "sqlite:////data/a@b/mlflow.db",
        "postgresql+psycopg2:///mlflow",
        "postgresql://ecg@db/mlflow?sslmode=require",
        "http://127.0.0.1:5000",
    ):
        Tracking(uri=uri, artifact_root=tmp_path)
