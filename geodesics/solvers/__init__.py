"""What can be passed as ``solver=``: one file per algorithm behind one protocol, what they all answer, and the
certificate of length that they share. Uses `minimization`, `ode` and `metrics`."""
