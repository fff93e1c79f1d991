"""Replay the kernels of a network on a GPU as CUDA graphs instead of launching them one by one.

Training on small images waits for Python, not for the GPU. A CUDA graph repeats kernels with the addresses, shapes and
numbers of its recording. A network is therefore recorded only if its computation cannot depend on anything else, which
the exact types of its modules decide (`problem`), and a recording is used only while everything that it depends on is
unchanged (`State`). In all other cases the network computes as without this package. The kernels are those of an eager
step, and so are the bits, which benchmarks/gpu.py compares.
"""
