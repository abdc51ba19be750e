"""Rewrites: what a model's author can change so that an NPU takes more of it, each change with its class and proof.

``table.RULES`` is every rule; ``table.candidates`` finds where they fit; ``Rule.apply`` rewrites and checks at once.
"""
