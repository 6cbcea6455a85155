"""Executors: restore in this process, in several, or on a Ray cluster.

*Executor*: restores the images of a run. *Scheduler*: an executor that hands images to workers in
chunks and survives the loss of any. *Worker pool*: where the workers live. *Endpoint*: the end of a
worker that the scheduler talks to. *Reply*: a worker's state, with its events since the last.

``launch.py`` chooses; ``process_pool.py`` and ``ray_cluster.py`` are the worker pools.

May import loading, batch and all below. Prints nothing.
"""
