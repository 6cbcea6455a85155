"""Image files: bytes to pixels and back.

*Picture*: decoded pixels, upright, with alpha and what is kept of the file's metadata. *Pixels*:
``(H, W, 3)`` RGB or ``(H, W, 1)`` gray, uint8 or uint16. *Floats*: the same as float32 in [0, 1].
*Codec*: recognises, measures and decodes one format. *Format*: what results are written in, and
what it holds. *Metadata*: what a file says beside its pixels.

``reading.py`` goes from a file to a picture, by ``codecs`` and ``metadata``; ``writing.py`` back,
by ``fitting.py`` and ``formats``.

May import settings, tasks, system and errors. Knows nothing of networks.
"""
