"""What a profile names, fetched and checked: models, SAEs, questions, texts."""
