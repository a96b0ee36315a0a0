"""The products `report` and `comparison`: HTML pages, and JSON with the same numbers.

    model.py                               the dataclasses that the pages show
    tasks.py  suite.py  waves.py           compute them from finished probes and wave products
    compare.py  verdict.py                 two encoders; whether pretraining helped
    views.py                               embedding maps and sample ECGs
    published.py                           figures that others report
    page.py  wording.py  templates/        render the dataclasses as HTML and sentences
    step.py                                the two products

`page.py` reads no product and computes no score.
"""
