"""The encoders that are evaluated and registered.

    names.py             their names in the workspace, in tables and in MLflow
    import_reference.py  the product `reference`: the author's released weights, checked and converted

The encoder that is trained here comes from `pipelines.pretrain`.
"""
