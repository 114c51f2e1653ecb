"""How a machine comes by a llama-bench: found, unpacked from a container image, or built from the pinned source.

:func:`benchctl.llama_bench_binary.resolve` is the way in; the modules here are the ways that it tries.
"""
