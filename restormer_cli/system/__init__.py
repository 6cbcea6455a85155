"""The machine: files, locks, processors, memory, standard streams. Nothing here is ours.

*Atomic*: a file appears whole under its name, or not at all. *Control group*: what a container or
a service manager leaves to a process.

May import errors only.
"""
