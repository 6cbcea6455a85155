"""Restores a folder of images into another folder.

``run.py`` runs all steps: ``discovery.py`` finds files (by ``walk.py`` and ``path_lists.py``),
``naming.py`` names results, ``resume.py`` decides, ``worker.py`` restores. ``watch.py`` goes on.

*Candidate*: a file, or a pair, that was found. *Item*: an image to restore and its result.
*Decision*: restore, skip or refuse an item. *Journal*: the record of a result folder, a file of
JSON lines. *Outcome*: done, skipped or failed, with the reason. *Shard*: a part of a run,
independent of the others. *Worker*: reads ahead, restores, writes in the background.

May import images, settings, tasks, system and errors. Sees the network through a protocol in
``image_restorer.py`` only, and prints nothing: it calls an *observer*.
"""
