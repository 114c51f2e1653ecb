"""Measure LLM inference with llama.cpp's llama-bench: all that runs on the target.

Standard library only, Python 3.9 and newer, no Ansible in it. The Ansible module ``llama_bench`` is a thin skin over
:mod:`session`; the controller imports the same package for planning, ingest and replay, so that one and the same
policy decides on a real server, in a rehearsal and over recorded runs.
"""
