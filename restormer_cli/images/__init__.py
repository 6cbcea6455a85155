"""Image files: bytes to pixels and back.

*Picture*: decoded pixels, upright, with alpha and what is kept of the file's metadata. *Pixels*:
``(H, W, 3)`` RGB or ``(H, W, 1)`` gray, uint8 or uint16. *Floats*: the same as float32 in [0, 1].
*Codec*: recognises, measures and decodes one format. *Metadata*: what a file says beside them.

``reading.py`` goes from a file to a picture, by ``codecs`` and ``metadata``; ``writing.py`` back.

May import settings, tasks, system and errors. Knows nothing of networks.
"""
