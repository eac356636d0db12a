"""One run: its folder, which of its stages run, and what each stage does."""

# In order. Each name is also a command, a folder of the run, and, except check, a settings section.
STAGES = ("check", "clusters", "classifier", "masks", "segmenter", "evaluate", "report")
