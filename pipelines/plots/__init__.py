"""Plots as PNG bytes or inline SVG; every function takes values and reads no product.

    canvas.py        colours, axes and PNG encoding shared by all
    ecg_paper.py     ECGs on ECG paper; segmentation.py adds the waves of each lead
    curves.py        training curves, ROC curves, histograms of a shard
    comparison.py    amplitude, wander and spectrum of a corpus' sources
    reliability.py   calibration curves
    scores.py        scores of encoders on tasks, with intervals
    files.py         downloaded bytes by kind of file
    weights.py       filters of a patch embedding
    svg.py           small plots for HTML pages

Products store PNGs in `aside/`; the report's pages embed SVG.
"""
