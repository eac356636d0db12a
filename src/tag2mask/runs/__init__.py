"""One run: its folder, which stages run, and what each does."""
