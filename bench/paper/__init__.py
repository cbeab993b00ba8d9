"""The experiments of "Latent Space Oddity" (Arvanitidis, Hansen and Hauberg, ICLR 2018), reproduced.

`python -m bench.paper` runs them from one configuration (`config`): an `experiment` is a function of the `lab`, which
trains and keeps the models; `run` stores what each returns, numbers as JSON and the `arrays` of its figures as npz.
`--draw` draws the figures again from these files. `catalog` lists the experiments.
"""
