"""The same calls, answered by a locked-down child process."""
