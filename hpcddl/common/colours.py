"""The colours and line styles of all pictures, in the order in which curves take them."""

# Wong (2011): told apart by the colour-blind; the line style tells them apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
