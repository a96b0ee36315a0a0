"""Registered models in MLflow: versions, the gate, promotion and retraining.

    tags.py            names that other programs read: aliases and tags
    model.py           a model to be registered, its scores, a registered version
    packaging.py       a model as MLflow stores and serves it
    registry.py        register a version, or find the one with the same files
    version_recipe.py  the recipe of a registered version
    aliases.py         the champion and other aliases, and moving them
    gate.py            the rules that a challenger must pass
    gate_probes.py     the probes that encoders are compared by
    contest.py         challenger and champion on the same validation records
    compared.py        score both for a contest
    classifier.py      the calibrated classifier
    version_recipe.py  the recipe on a version, written as JSON and read back
    retraining.py      the default training, and whether one is due
    own_code.py        whether a version was registered with this checkout's code
    own_process.py     a version with other code, in a process of its own; own_program.py runs there
    own_source.py      a version as a source of features, by its own code
    resolve.py         an encoder's name to its weights or its version
    pulled.py          a registered model, compared with what was released, and an encoder as a function of one ECG
    scoring.py         a model over HTTP, and scoring_request.py, the body of a request
    steps.py           from a trained encoder to a promoted version

MLflow is imported here, in `pipelines.tracking` and in `ecg_model.serving` only.
"""
