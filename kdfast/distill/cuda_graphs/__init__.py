"""Replay what a network launches on a GPU, in place of launching it again.

A step on small images waits for Python, not for the GPU. A CUDA graph repeats kernels with the addresses, shapes and
numbers that they were launched with. So a network is recorded only if nothing in it can depend on anything else,
which is decided by the exact types of its modules (`problem`), and a recording is used only as long as all that it
froze is as it was (`State`). Whatever is not sure computes as ever. The kernels are those of an eager step, and so
are the bits, which benchmarks/gpu.py compares.
"""
