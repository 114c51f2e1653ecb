"""The policy over recorded runs: what it would have cost, what it would have kept, and what it would have lost.

``recording`` reads one recorded run, ``corpus`` finds the runs of a folder or an archive, ``world`` plays one behind
the protocols of the real machine, ``rerun`` runs the real session in it, ``account`` says where the time went,
``report`` adds up. Pure but for ``corpus`` and ``listed``, which read files.
"""
