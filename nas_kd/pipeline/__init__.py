"""From a configuration to its stages: what joins the rooms for the command line."""
