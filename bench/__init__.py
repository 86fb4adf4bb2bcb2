"""Measures backupd beside those who do the same work otherwise: the raw wire, mbsync with restic, mbsync with borg.

Ratios between programs that ran on the same machine, on the same mail, in the same minutes mean something; seconds
alone do not. Hence everything here runs in one go, in rounds that take turns. `python -m bench --help`.
"""
