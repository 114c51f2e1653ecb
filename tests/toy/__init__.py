"""A cloud of one kind of thing, behind Pulumi's provider protocol: an emulation to try the engine with.

``provider`` runs as the plugin ``pulumi-resource-toy``; ``cloud`` is how a test says what it shall do and sees what it
did. Both share a folder.
"""
