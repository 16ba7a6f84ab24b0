"""Looking at a finished run: what was there, what was tracked, where and why it went wrong."""
