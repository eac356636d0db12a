"""Photos, their tags and their masks: what every room reads."""
