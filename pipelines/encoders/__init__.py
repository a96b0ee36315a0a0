"""The encoders that are evaluated and registered.

    names.py             their names in the workspace, in tables and in MLflow
    import_released.py   which released encoder a file holds, and its product:
    import_reference.py      `reference`: the released weights of ECG-JEPA, checked and converted
    import_reference_cpc.py  `reference_cpc`: those of ECG-CPC, a Lightning checkpoint
    checkpoint_file.py       the tensors in a file of torch, by
    inert_pickle.py          a reader of pickles that runs nothing

The encoder that is trained here comes from `pipelines.pretrain`.
"""
