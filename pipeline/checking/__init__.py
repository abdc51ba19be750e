"""Checking: one model against one target, before a device exists: placement, price, what to change, where to cut.

``check.check`` is the whole of it; ``document`` and ``terminal`` say it to scripts and to people.
"""
