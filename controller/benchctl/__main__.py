"""``python -m benchctl``."""

from __future__ import annotations

from benchctl.cli import main

main()
