"""Weights: which there are, where they lie, what is in a file, and how to get one.

*Registry*: the official and the embedded files. *Checkpoint*: a file that holds a state dict.
*Compact*: the embedded networks of this project. *Pin*: the hash of a file as first downloaded,
where no official one is known.

*State dict*: tensors by name. *Parameters*: those of them that are the network's.

``selection.py`` finds a file for a task, ``checkpoint.py`` makes a network of it.

May import network, images, tasks, settings, system and errors.
"""
