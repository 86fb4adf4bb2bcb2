"""Logging in by OAuth2 (RFC 6749): an app, a provider, its tokens, and where they are kept.

Only `provider`, `transport`, `device` and `redirect` speak to the network, and only they need authlib and httpx2, which
come with backupd[oauth]. What is known of stored logins can be told without them.
"""
