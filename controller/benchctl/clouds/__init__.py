"""Renting servers: the vendors, what is asked of them, and how it is surely given back.

::

    spec      what is wanted and what was got: plain frozen values, names and labels
    cloud     what a vendor's module offers: a Pulumi program, and a client of the vendor's own to look with
    aws, gcp, azure, hetzner, upcloud, lab      one module per vendor; SDKs are imported inside its functions
    boot      the first boot of an instance: host key, login, the cloud's own end
    keys      the sweep's key pair, the jobs' host keys
    stacks    Pulumi's engine: up, destroy, and what a killed engine leaves
    faults    why a vendor said no; placement: what to try next (both pure)
    rental    one job's server, from the question to the proof that it is gone
    reaper    what the vendors' APIs list under our labels, against what should be alive

Importing this package imports none of them.
"""

import os

# gRPC, on which Pulumi's SDK stands, meddles with forks where it is not told otherwise: it closes the poller's file in
# the child, whose program (Ansible's runner forks for each run) then dies of it. A child of ours only starts a program.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
