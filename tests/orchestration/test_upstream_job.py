"""The job that asks the hosts leaves its answer on the raw asset, where the UI shows it."""

import dagster as dg
import pytest

from assets.resources import DataHome
from orchestration.definitions import defs
from orchestration.upstream import upstream_job
from pipelines.download.mirror import Mirror
from pipelines.download.step import materialize_raw
from pipelines.simulate import MirrorSizes, write_mirror
from pipelines.sources import SOURCES


@pytest.mark.parametrize("changed", [False, True])
def test_the_answer_is_an_observation_of_the_raw_asset(home, tmp_path, changed):
    sizes = MirrorSizes(chapman=(2,), code15=(), ptbxl=(), cpsc2018=(), georgia=(), ludb=0)
    mirror = write_mirror(tmp_path / "mirror", sizes=sizes).path
    home.set_mirror(str(mirror))
    chapman = SOURCES["chapman"]
    materialize_raw(home.workspace(), chapman, "01", mirror=Mirror.parse(home.mirror), raw_root=home.raw_root)
    if changed:
        sums = mirror / chapman.root / "SHA256SUMS.txt"
        sums.write_text("".join(f"{'0' * 64}{line[64:]}\n" for line in sums.read_text().splitlines()))
    with dg.DagsterInstance.ephemeral() as instance:
        assert upstream_job.execute_in_process(instance=instance, resources={"data_home": DataHome()}).success
        (record,) = instance.fetch_observations(dg.AssetKey(["raw", "chapman"]), limit=9).records
    assert record.asset_observation is not None
    metadata = {name: value.value for name, value in record.asset_observation.metadata.items()}
    words = "1 of 1 partition changed: 01" if changed else "as it was taken (1 partition)"
    assert metadata == {"upstream": words, "unchanged": not changed}


def test_the_code_location_loads_with_it():
    dg.Definitions.validate_loadable(defs)
