"""How clean photos become the degraded ones that the compact networks learn from.

Every degradation is a function ``(clean, rng, ...) -> degraded``. ``clean`` is float32
``(H, W, 3)`` RGB in [0, 1], encoded in sRGB as files are, height and width 32 or more; the result
is float32 of the same height and width. All randomness comes from ``rng``, so a seed fixes the
result.

Each kind comes twice: a function with its strength as parameters, where strength 0 gives the
clean image back, for validation; and a ``blind_`` one that draws the strength, for training,
and sometimes draws none, because a network that never saw a good photo harms it. Motion blur for
training is made in batches on the device (:mod:`degradations.shake`).

``contact_sheet.py --photos DIR --sheet FILE.png`` shows them all.
"""
