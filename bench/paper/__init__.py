"""The experiments of "Latent Space Oddity" (Arvanitidis, Hansen and Hauberg, ICLR 2018), reproduced.

`python -m bench.paper` runs them from one configuration (`config`): an `experiment` is a function of the `lab`, which
trains and keeps the models; `run` stores what each returns. `catalog` lists them.
"""
