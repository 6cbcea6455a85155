"""The network: its architecture as in the paper, and its exact evaluation strip by strip.

*MDTA*, *GDFN*: the two halves of a transformer block (paper, 3.1 and 3.2). *Strip*: some rows of a
feature map. *Halo*: rows above and below a strip that a 3×3 convolution needs. *Packed*: parameters
folded and laid out for strips. *Plan*: strip height and where feature maps live, so that memory
suffices.

May import settings, tasks, system and errors. Knows nothing of image files, and of other files only
those that it makes.
"""
