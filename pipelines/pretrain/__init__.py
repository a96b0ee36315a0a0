"""Pretraining: from the corpus to the product `encoder`. A program of its own: `python -m pipelines.pretrain`.

    recipes.py  data.py  sampling_order.py  schedule.py     what is computed, and on which ECGs at which step
    train.py  distributed.py  free_memory.py                the loop, its processes, its memory
    checkpoint.py  run_state.py  best_encoder.py            what is stored while it runs
    metrics_log.py  monitor.py  online_probe.py  flops.py   what it logs
    __main__.py  options.py  torchrun.py                    the program, with one process or several
    checks.py                                               check a finished training
    step.py                                                 the product

The next step is `pipelines.evaluate`.
"""
