"""Kills in the middle of a sweep over clouds, and whether anything is left, lost or doubled after them.

The clouds are emulations (:mod:`emulation`), all else is real: the command line in a process of its own, Pulumi's
engine, SSH, Ansible and llama-bench on containers. :mod:`kills.cases` says what is tried, :mod:`kills.play` does it,
:mod:`kills.checks` judges. ``tests/benchmarks/kill_matrix.py`` runs all of it, and
``tests/acceptance/test_kill_matrix.py`` a handful.
"""
