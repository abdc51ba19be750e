"""Placing: which units of a model run on the NPU and which on the CPU, at least total time, with a certificate.

Pure algorithms: a ``Problem`` (problem.py) in, a ``Solution`` out; nothing here knows ONNX, chips or files.
``evaluate`` (evaluate.py) defines what a placement costs, ``exact`` (exact.py) finds the cheapest one, ``greedy``
(baselines.py) is what toolchains do, and ``faults`` (checker.py) judges a solution and shares no code with any solver.
"""
