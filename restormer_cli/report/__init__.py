"""A folder of results as one HTML file that works without a network, and as a contact sheet.

``subjects`` finds what there is to show, ``pictures`` makes thumbnails and keeps them, ``page``
puts the file together from ``page.html``, ``page.css`` and the scripts, ``contact_sheet`` draws
the contact sheet, and ``build`` goes the whole way.

*Subject*: an image with its views. *View*: its input, result or target. *Store*: pictures inside
the page while it stays small, else beside it.

May import evaluation and all below. Prints nothing.
"""
