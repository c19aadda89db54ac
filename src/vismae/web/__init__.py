"""Floor 4: a door for browsers and for other programs of the house.

``server`` starts it, ``gate`` and ``uploads`` decide what comes in, ``page_routes`` and ``rest``
answer, ``jobs`` lets one thing be computed at a time, ``child`` computes it in a process of its
own, and ``page/`` is what browsers show.
"""
