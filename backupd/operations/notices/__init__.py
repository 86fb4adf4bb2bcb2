"""Telling people of trouble: once for each cause, and again when it is over.

events.py       what happens, as the daemon says it, and what that means: a trouble that begins or lasts, or its end
causes.py       the open causes as the person at one target knows them: values, and what an event changes in them
deciding.py     pure: (open causes, events, now) -> (messages, open causes)
wording.py      pure: a message as text
weekly.py       pure: the weekly summary
outbox.py       messages on their way, kept in the state until they have arrived
sending.py      one message to one Apprise address, by a process of its own that can be ended
pings.py        addresses of a service that notices when backups stay away
notifier.py     all of it together, on threads of its own: what the daemon holds
"""
