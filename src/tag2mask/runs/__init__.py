"""One run: its folder, which of its stages run, and what each stage does."""
