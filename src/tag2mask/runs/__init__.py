"""One run: its folder, which of its stages run, and what each does."""

# In their order. A stage has this one name as a command, as a folder and as a section of settings.
STAGES = ("check", "clusters", "classifier", "masks", "segmenter", "evaluate", "report")
