"""The commands that are about one model of the user's own; ``pipeline.cli`` puts them together.

Only what parses options is imported with these modules, so that ``pipeline --help`` stays fast.
"""
