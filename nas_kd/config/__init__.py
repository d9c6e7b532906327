"""Classes of settings: definition, reading from files and the command line, checks, messages and help."""
