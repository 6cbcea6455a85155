"""A folder in, a folder out: what is to be done, doing it, and what became of it.

``run.py`` is the way through: ``discovery.py`` finds files (by ``walk.py`` and ``path_lists.py``),
``naming.py`` names results, ``resume.py`` decides, ``worker.py`` restores. ``watch.py`` goes on.

*Candidate*: a file, or a pair, that was found. *Item*: an image to restore and its result.
*Decision*: restore, skip or refuse an item. *Journal*: the record of a result folder, a file of
JSON lines. *Outcome*: what became of an image. *Shard*: a part of a run that knows nothing of the
others. *Worker*: reads ahead, restores, writes behind.

May import images, settings, tasks, system and errors. Sees the network through a protocol in
``image_restorer.py`` only, and prints nothing: an *observer* is told.
"""
