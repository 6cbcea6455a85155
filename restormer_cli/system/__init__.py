"""The machine: files, locks, processors, memory, standard streams. Nothing here knows of images.

*Atomic*: a file appears whole under its name, or not at all. *Control group*: the
limits that a container or a service manager sets for a process.

May import errors only.
"""
