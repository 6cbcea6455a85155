"""Weights: the known files, finding and downloading one, and reading its network.

*Registry*: the official and the embedded files. *Checkpoint*: a file that holds a state dict.
*Compact*: the embedded networks of this project. *Pin*: the hash of a file as first downloaded,
where no official one is known.

*State dict*: tensors by name. *Parameters*: the tensors of the network among them.

``selection.py`` finds a file for a task, ``checkpoint.py`` builds a network from it.

May import network, images, tasks, settings, system and errors.
"""
