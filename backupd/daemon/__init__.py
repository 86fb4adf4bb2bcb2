"""The daemon: schedules what the operations do, and tells how it goes. It has no rules of its own about mail."""
