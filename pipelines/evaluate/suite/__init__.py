"""The evaluation suite: named evaluations of an encoder, each beside its baselines.

    names.py               the evaluations, as data
    baselines.py           the random encoder and the handcrafted features of an evaluation
    noise.py               noise added to recorded ECGs
    own_labels.py          a task from a csv of labels; labelled_records.py: which ECGs its rows mean
    run.py                 run evaluations by name
    attention_ablation.py  the same pretraining with dense attention, for comparison

The results are products of `pipelines.evaluate.probes`; the report reads them.
"""
