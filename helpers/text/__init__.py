"""Words and token rows: questions, prompts, corpora, batches."""
