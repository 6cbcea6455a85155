"""A folder of results as one HTML file that works without a network, and as a contact sheet.

``subjects`` finds what there is to show, ``pictures`` makes thumbnails and keeps them, ``page``
puts the file together from ``page.html``, ``page.css`` and the scripts, ``sheet`` draws the
contact sheet, and ``build`` lets the data walk through them.
"""
