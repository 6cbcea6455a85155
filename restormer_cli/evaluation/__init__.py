"""How good results are: metrics, protocols, the papers' tables.

*Metric*: PSNR, SSIM or MAE of a result against its target. *Protocol*: how a paper measures, that
is in which colours, with which window and border. *Pairing*: which target belongs to a result.
*Run log*: what ``--log-json`` wrote when the results were made. *Table*: data sets of a paper with
its published figures, as YAML in ``papers``.

May import api, executors and all below, but not report. Prints nothing.
"""
