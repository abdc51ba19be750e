"""Reports of a run for three readers: the terminal, scripts (JSON) and people (one HTML page).

Start at ``writer``. Nothing is imported here: the package stage takes ``samples`` from this room, and what this file
imported would count as that stage's code.
"""
