"""Settings: how a class of them is made, read from a file or a command line, checked, worded and shown."""
