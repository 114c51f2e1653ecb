"""The vendor ``lab``: a cloud on this machine, whose servers are containers with sshd. A rehearsal of whole sweeps.

``plugin`` is Pulumi's provider protocol in small; what it serves is a :class:`~benchctl.lab.plugin.Provider`.
"""
