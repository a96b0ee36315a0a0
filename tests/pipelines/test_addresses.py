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


@pytest.mark.parametrize(
    "address", ["s3://KEY:SEKRET@bucket/p", "s3://SEKRET@bucket", "az://acc:SEKRET@c", "s3://bucket/p?key=SEKRET"]
)
def test_a_bucket_with_a_secret_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(ValueError, match="ECG_INCOMING has") as refused:
        place_of(address)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:SEKRET@h/db",
        "postgresql://h/db?password=SEKRET",
        "postgresql+psycopg2://h/db?sslmode=require&sslpassword=SEKRET",
        "http://u:SEKRET@h:5000",
        "http://h:5000/?token=SEKRET",
    ],
)
def test_a_store_with_a_secret_is_refused_without_showing_it(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="tracking uri has") as refused:
        Tracking(uri=address, artifact_root=tmp_path)
    assert SECRET not in str(refused.value)


def test_addresses_without_secrets_are_taken(tmp_path: Path) -> None:
    for address in ("https://mirror.example/ecg", "http://127.0.0.1:8000", "http://[::1]:8000/a"):
        assert Mirror.parse(address).folder is None
    place_of("s3://bucket/incoming")
    for uri in (
        "sqlite:////data/a@b/mlflow.db",
        "postgresql+psycopg2:///mlflow",
        "postgresql://ecg@db/mlflow?sslmode=require",
        "http://127.0.0.1:5000",
    ):
        Tracking(uri=uri, artifact_root=tmp_path)
