"""The graph as people see it: what there is, what depends on what, and what an import costs."""

import subprocess
import sys

import dagster as dg

from assets.delineation import WaveSettings
from assets.evaluate import probe_assets
from assets.sources import incoming_drops
from orchestration.definitions import defs
from orchestration.jobs import COMPARE, REFERENCE, REFERENCE_CPC, TRAIN
from orchestration.limits import LIMITS
from pipelines.evaluate.suite.names import AGAINST_DENSE, SUITE, evaluation
from pipelines.evaluate.waves.config import PseudoConfig
from pipelines.sources import SOURCES


def test_the_graph_is_the_road():
    graph = defs.resolve_asset_graph()
    ecgs = {f"ecgs/{source}" for source in (*SOURCES, "incoming")}
    wanted = {
        **{f"raw/{source}": set() for source in (*SOURCES, "incoming")},
        **{f"ecgs/{source}": {f"raw/{source}"} for source in (*SOURCES, "incoming")},
        "corpus": ecgs,
        "encoder": {"corpus"},
        "probe/ptbxl_superclass": {"encoder", "ecgs/ptbxl"},
        "probe/cpsc2018": {"encoder", "ecgs/cpsc2018"},
        "evaluation_report": {"corpus", "encoder", "probe/ptbxl_superclass", "probe/cpsc2018"},
        "released_encoder": {"encoder", "probe/ptbxl_superclass", "probe/cpsc2018", "evaluation_report"},
        "gate_verdict": {"released_encoder"},
        "champion": {"gate_verdict"},
        "classifier": {"champion"},
        "encoder_comparison": {"champion"},
        "own_classifier": {"champion", "ecgs/incoming"},
        "scaling": {"corpus"},
        "reference_encoder": set(),
        "reference_probe/ptbxl_superclass": {"reference_encoder", "ecgs/ptbxl"},
        "reference_probe/cpsc2018": {"reference_encoder", "ecgs/cpsc2018"},
        "released_reference": {
            "reference_encoder",
            "reference_probe/ptbxl_superclass",
            "reference_probe/cpsc2018",
        },
        "reference_cpc_encoder": set(),
        "reference_cpc_probe/ptbxl_superclass": {"reference_cpc_encoder", "ecgs/ptbxl"},
        "reference_cpc_probe/cpsc2018": {"reference_cpc_encoder", "ecgs/cpsc2018"},
        "released_reference_cpc": {
            "reference_cpc_encoder",
            "reference_cpc_probe/ptbxl_superclass",
            "reference_cpc_probe/cpsc2018",
        },
    }
    found = {
        node.key.to_user_string(): {parent.to_user_string() for parent in node.parent_keys}
        for node in graph.asset_nodes
        if node.group_name != "evaluate_suite"
    }
    assert found == wanted


def test_the_reference_has_a_job_of_its_own_and_is_in_no_other():
    assets = {
        job.name: {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        for job in (defs.resolve_job_def(name) for name in (TRAIN, REFERENCE, REFERENCE_CPC, COMPARE))
    }
    assert assets[COMPARE] == {"encoder_comparison"}
    assert assets[REFERENCE] == {
        "reference_encoder",
        "reference_probe/ptbxl_superclass",
        "reference_probe/cpsc2018",
        "released_reference",
    }
    assert assets[REFERENCE_CPC] == {
        "reference_cpc_encoder",
        "reference_cpc_probe/ptbxl_superclass",
        "reference_cpc_probe/cpsc2018",
        "released_reference_cpc",
    }
    assert assets[TRAIN] == {
        "corpus",
        "encoder",
        "probe/ptbxl_superclass",
        "probe/cpsc2018",
        "evaluation_report",
        "released_encoder",
        "gate_verdict",
        "champion",
        "classifier",
    }


GROUPS = (
    "download",
    "harmonize",
    "corpus",
    "pretrain",
    "evaluate",
    "evaluate_suite",
    "release",
    "compare",
    "own_classifier",
    "scaling",
)


def test_every_asset_says_what_it_is_and_has_a_code_version():
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description, node.key
        assert len(node.description) > 40, node.key
        assert node.code_version, node.key
        assert node.group_name in GROUPS, node.key
        assert node.kinds, node.key
        assert node.tags["ecg/pool"] in {*LIMITS, "none"}, node.key


def test_every_job_schedule_and_sensor_says_what_it_does():
    repository = defs.get_repository_def()
    named = [job for job in repository.get_all_jobs() if not job.name.startswith("__")]
    for one in (*named, *repository.schedule_defs, *repository.sensor_defs):
        assert len(one.description or "") > 30, one.name


def test_every_setting_has_help():
    ops = [asset.op for asset in defs.assets if isinstance(asset, dg.AssetsDefinition)]
    jobs = defs.get_repository_def().get_all_jobs()
    ops += [node.definition for job in jobs for node in job.graph.nodes if isinstance(node.definition, dg.OpDefinition)]
    named = {op.name: op.config_schema.config_type for op in ops}
    assert {"encoder", "ask_hosts"} <= set(named)
    for name, config in named.items():
        for field, setting in getattr(config, "fields", {}).items():
            assert setting.description, f"{name}: {field}"


def test_the_gates_task_is_asked_for_once():
    """Two fields of it could differ."""
    ops = {asset.op.name: asset.op for asset in defs.assets or () if isinstance(asset, dg.AssetsDefinition)}
    asked = {name for name, op in ops.items() if "gate_task" in getattr(op.config_schema.config_type, "fields", {})}
    assert asked == {"released_encoder", "released_reference", "released_reference_cpc"}


def test_partitions_are_the_sources():
    graph = defs.resolve_asset_graph()
    for source in SOURCES.values():
        for kind in ("raw", "ecgs"):
            partitions = graph.get(dg.AssetKey([kind, source.name])).partitions_def
            assert isinstance(partitions, dg.StaticPartitionsDefinition)
            assert tuple(partitions.get_partition_keys()) == source.partitions
    for kind in ("raw", "ecgs"):
        assert graph.get(dg.AssetKey([kind, "incoming"])).partitions_def == incoming_drops
    assert {name: len(source.partitions) for name, source in SOURCES.items()} == {
        "chapman": 46,
        "code15": 18,
        "ptbxl": 22,
        "ptbxl100": 22,
        "cpsc2018": 7,
        "georgia": 11,
        "ludb": 1,
    }


def test_blocking_checks_stand_where_the_road_must_stop():
    graph = defs.resolve_asset_graph()
    blocking = {key.asset_key.to_user_string() for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert blocking == {
        *(f"ecgs/{s}" for s in (*SOURCES, "incoming")),
        "corpus",
        "encoder",
        "probe/ptbxl_superclass",
        "probe/cpsc2018",
        "gate_verdict",
    }
    assert len(probe_assets) == 2


def test_importing_the_code_location_loads_no_torch_and_no_mlflow():
    script = (
        "import sys; import orchestration.definitions\n"
        "print([name for name in ('torch', 'mlflow', 'matplotlib', 'sklearn', 'scipy.signal') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WAVES = {"segmentation/ludb": "ludb", "segmentation/ptbxl": "ptbxl", "regression/ptbxl": "ptbxl"}


def test_the_suite_is_an_asset_an_evaluation_that_nothing_waits_for():
    graph = defs.resolve_asset_graph()
    suite = {key for key in graph.get_all_asset_keys() if graph.get(key).group_name == "evaluate_suite"}
    source_of = {f"probe/{name}": asked.task.source for name, asked in SUITE.items()} | WAVES
    source_of |= {f"dense/{name}": evaluation(name).task.source for name in AGAINST_DENSE}
    assert {key.to_user_string() for key in suite} == set(source_of)
    assert defs.resolve_job_def("evaluate_suite").asset_layer.selected_asset_keys == suite
    for key in suite:
        node = graph.get(key)
        (source,) = [parent for parent in node.parent_keys if parent.path[0] == "ecgs"]
        assert source.path[1] == source_of[key.to_user_string()]
        assert {parent.to_user_string() for parent in node.parent_keys} == {"encoder", source.to_user_string()}
        assert not node.child_keys
        assert not node.check_keys


def test_a_share_of_pseudo_labels_is_the_same_in_the_launchpad_as_in_a_shell():
    assert WaveSettings().pseudo_share == PseudoConfig().share
