"""Measures results: metrics, protocols, the papers' tables.

*Metric*: a number for the closeness of a result to its target, such as PSNR. *Protocol*: the way a
paper measures: colours, window and border. *Pairing*: the targets that belong to the results. *Run
log*: the lines that ``--log-json`` wrote when the results were made. *Table*: data sets of a paper
with its published figures, as YAML in ``papers``.

May import api, executors and all below, but not report. Prints nothing.
"""
