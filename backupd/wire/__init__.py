"""Wire: protocol engines used by a source and a target alike. They speak and parse, and decide nothing."""
