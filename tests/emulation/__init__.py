"""Emulated clouds: they say what the vendors' APIs say, and no vendor was asked. Nothing here is measured.

What is real: Pulumi's engine, the vendors' Pulumi SDKs, the vendors' own Python clients, HTTP, and where a test wants
it, SSH to a container. What is emulated: the vendor's Pulumi plugin and the vendor's API behind it.

::

    world         one process that holds every emulated cloud; it outlives kills of the controller and of the engine
    provider      the program pulumi-resource-NAME: the engine's calls, passed on to the world
    vendor        what one emulated vendor is; hetzner, gcp, ... are modules of their own
    store         what exists, and the lists that lag behind it
    faults        what goes wrong, as the test scripts it
    refusals      why a request is refused: rule, the vendor's words, and where they were found
    cloudinit     user data, as cloud-init reads it; first_boot runs in the container
    backing       containers behind the servers
    fixtures      the world as a fixture
"""
