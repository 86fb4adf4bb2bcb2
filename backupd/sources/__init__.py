"""Sources: where mail is read from. Each gives sessions that discover, scan and fetch; none ever changes the mail."""
