"""The command line.

A file for each command holds its options, their help and the call. ``options.py`` declares
the options that restoring commands share, ``restore.py`` makes these from the tasks. Only this
package prints: stdout is data, stderr is for people.

*Console*: shows a run to a person or a pipeline. *Notice*: a line on stderr that is no error.

May import every other package. Nothing imports this one.
"""
