"""Probes: an encoder on one label task, the product `probe/<task>/<encoder>`.

    heads.py                                            the interface of all heads: fit on features
    linear.py  attention_pool.py  fine_tune.py          the heads; augment.py and layer_start.py for fine-tuning
    handcrafted.py                                      features of an ECG without any training, the baseline
    config.py                                           settings
    fit.py                                              train, choose on validation, score the test split once
    assessment.py                                       F1, Brier score, reliability and more of the test predictions
    result.py  stored.py                                a result in memory and on disk; a finished probe, loaded
    comparison.py                                       two probes on the same records
    step.py                                             the product

Features come from `pipelines.evaluate.features`, tasks from `pipelines.tasks`.
"""
