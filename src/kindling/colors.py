"""Colors of lines on white, distinguishable with color-vision deficiency and in print.

Source: Okabe and Ito's palette, doi.org/10.1038/nmeth.1618. Also use dashes: a line should be
recognizable without its color.
"""

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GRAY = "#E69F00", "#56B4E9", "#222222", "#767676"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
THIN = (BLUE, VERMILION, GREEN, PURPLE, BLACK, GRAY)  # contrast on white of at least 3 to 1
DASHES = ("-", "--", "-.", ":")
