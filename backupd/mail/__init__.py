"""Mail: knowledge of mail itself, without I/O: splitting into parts, names, flags, dates, envelopes, UID sets."""
