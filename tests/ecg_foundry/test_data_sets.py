"""What the installed package says of the public sources is what the pipeline says."""

import json
import os
from dataclasses import fields

from ecg_foundry.data_sets import DATA_SETS, FILE, INCOMING, DataSet
from pipelines.incoming.listing import NAME
from pipelines.sources import SOURCES


def test_titles_licences_and_citations_are_those_of_the_pipeline() -> None:
    sources = {
        name: {field.name: getattr(source, field.name) for field in fields(DataSet)} for name, source in SOURCES.items()
    }
    if os.environ.get("GOLDEN") == "rewrite":
        FILE.write_text(json.dumps(sources, indent=1) + "\n")
    assert json.loads(FILE.read_text()) == sources, "GOLDEN=rewrite pytest tests/ecg_foundry/test_data_sets.py"
    assert [*DATA_SETS] == [*SOURCES]
    assert INCOMING == NAME
