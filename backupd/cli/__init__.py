"""The command line: a skin. It parses, calls an operation and shows; it has no rules of its own."""
