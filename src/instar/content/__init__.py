"""Trees to manifests and packs, and trees from them again. Who signed what is decided elsewhere.

Two halves. The device's (``codecs``, ``manifests``, ``downloads``, ``rebuild``, ``trees``) is light and ships inside
people's apps; the publisher's (``scan``, ``build`` and what they use) needs the ``publish`` extra.
"""
