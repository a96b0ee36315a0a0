"""Scaling curves: how a probe's score grows with the ECGs of pretraining, for several recipes.

    config.py     settings
    plan.py       the trainings that they mean
    cost.py       what these cost, before they are run
    step.py       train what is missing, probe it, fit: the product `scaling/curves/<evaluation>-<fixed>`
    fit.py        the power law C N^-a + L0 with intervals, or why it cannot be told
    facts.py      what a product says, in tables and sentences
    picture.py    its picture

The shares of a corpus are in `pipelines.corpus.subset`.
"""
