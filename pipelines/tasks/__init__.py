"""Classification tasks on a source's labels.

    vocabularies.py  the sources' codes, their names and groups
    splits.py        protocols that divide records into train, validation and test, by fold, partition or patient
    catalogue.py     the tasks: classes of codes, source and protocol

Tasks are plain data; `pipelines.evaluate` trains probes on them.
"""
