"""Shows a folder of results as one HTML file that works without a network, and as contact sheets.

``build`` runs all steps: ``subjects`` finds the files of each image, ``pictures`` makes and keeps
thumbnails, ``values`` is what the page is given, ``page`` makes the file from it, ``page.html``,
``page.css`` and the scripts, and ``contact_sheet`` draws contact sheets.

*Subject*: an image with its views. *View*: its input, result or target. *Store*: pictures inside
the page while it stays small, else beside it.

May import evaluation and all below. Prints nothing.
"""
